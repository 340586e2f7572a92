// A multilayer perceptron with Adam written directly in Eigen, as somebody would who needs nothing
// else: what `ferry bench train` sets the graph runtime beside.
#ifndef FERRY_TOOLS_HAND_WRITTEN_MLP_H_
#define FERRY_TOOLS_HAND_WRITTEN_MLP_H_

#include <cstdint>
#include <memory>
#include <vector>

namespace ferry {

class HandWrittenMlp {
 public:
  // Layer sizes from the input to the classes.
  HandWrittenMlp(const std::vector<int64_t>& sizes, int64_t batch);
  ~HandWrittenMlp();
  // One training step; x is [batch, sizes.front()] by rows, labels [batch]. Returns the loss.
  float Step(const float* x, const int64_t* labels);

 private:
  struct Rep;
  std::unique_ptr<Rep> rep_;
};

}  // namespace ferry

#endif  // FERRY_TOOLS_HAND_WRITTEN_MLP_H_
