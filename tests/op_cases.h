// Runs single ops beside TensorFlow: reads the cases below testdata/op_cases (case_lib.py there
// says what they hold) and compares what the session computes with TensorFlow's results and errors.
#ifndef FERRY_TESTS_OP_CASES_H_
#define FERRY_TESTS_OP_CASES_H_

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/graph.pb.h"
#include "runtime/tensor/tensor.h"

namespace ferry {

struct OpCase {
  std::string name;
  std::vector<proto::NodeDef> nodes;     // name/op, and those between the inputs and it.
  std::map<std::string, Tensor> values;  // The Consts: "in0", "expect1", "tol", …
  std::shared_ptr<const proto::FunctionDefLibrary> library;  // The file's; null if it has none.
};

// The cases of a file such as "op_cases/binary.pb" (below tests/testdata, unless it begins with a
// slash), in its order.
absl::StatusOr<std::vector<OpCase>> LoadOpCases(const std::string& file);

// How a case's inputs reach the op.
enum class Inputs {
  kConst,  // Constants: shapes and values are known while the graph is built.
  kFed,    // Placeholders without shapes: kernels have to check for themselves.
  kOwned   // Memory of the run that ends at the op, which may then work in place.
};

// OK, or what differs from TensorFlow. Statically inferred shapes must fit the results too.
// `device` is "cpu" or "gpu": then the nodes that have a GPU kernel run there, with the same
// tolerances.
absl::Status CheckOpCase(const OpCase& c, Inputs inputs, const std::string& device);

// Whether the case's op has a GPU kernel.
bool HasGpuKernel(const OpCase& c);

// For a case of gradients.pb: OK, or how AddSymbolicGradients' gradients differ from its own.
absl::Status CheckGradientCase(const OpCase& c, const std::string& device);

// OK, or the first difference in dtype, shape or elements. A NaN equals any NaN, an infinity only
// itself. Other numbers may differ by tol * (the largest finite magnitude in `expected`) or rtol *
// (the expected element's magnitude).
absl::Status CompareTensors(const Tensor& expected, const Tensor& found, double tol = 0,
                            double rtol = 0);

}  // namespace ferry

#endif  // FERRY_TESTS_OP_CASES_H_
