// What the examples share: looking at a value, printing it as NumPy does, and a main function that
// tells of errors. An example is a function that returns a Status; it writes its files below the
// current folder.
#ifndef FERRY_EXAMPLES_EXAMPLE_H_
#define FERRY_EXAMPLES_EXAMPLE_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/session/session.h"
#include "runtime/tensor/tensor.h"

namespace ferry::examples {

// One value of one run.
absl::StatusOr<Tensor> Fetch(Session* session, const std::string& name,
                             const std::vector<std::pair<std::string, Tensor>>& feeds = {});

// "[1. 1. 1.]", "[[1. 2.]\n [3. 4.]]", "24.0" for floats; integers without the dot. The shortest
// digits that give the number back.
std::string Text(const Tensor& t);

// Prints what Fetch gives: "v1 : [1. 1. 1.]".
absl::Status Show(Session* session, const std::string& label, const std::string& name);

// 0, or 1 after printing the error.
int Main(absl::Status (*example)());

}  // namespace ferry::examples

#endif  // FERRY_EXAMPLES_EXAMPLE_H_
