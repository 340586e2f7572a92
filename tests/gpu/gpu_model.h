// Variables on devices, a session and a Saver, for the tests of saves and restores.
#ifndef FERRY_TESTS_GPU_GPU_MODEL_H_
#define FERRY_TESTS_GPU_GPU_MODEL_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "gtest/gtest.h"
#include "runtime/graph/ops.h"
#include "runtime/graph/variables.h"
#include "runtime/session/session.h"
#include "saver/saver.h"

namespace ferry::testing {

// Float variables v000, v001, … of the given sizes, on devices in turn. Their initial values count
// on from variable to variable; "step" adds 1 to each element.
struct GpuModel {
  GpuModel(const std::vector<int64_t>& sizes, const std::vector<std::string>& devices,
        const SessionOptions& options = {}, const SaverOptions& saver_options = {}) {
    const Scope root(&graph);
    std::vector<Node*> init, step;
    float next = 0;
    for (size_t i = 0; i < sizes.size(); ++i) {
      const Scope s = root.WithDevice(devices[i % devices.size()]);
      absl::StatusOr<Tensor> value = Tensor::Allocate(DType::kFloat, {sizes[i]});
      EXPECT_TRUE(value.ok()) << value.status();
      for (int64_t k = 0; k < sizes[i]; ++k) value->data<float>()[k] = next++;
      names.push_back(absl::StrFormat("v%03d", i));
      const Output v =
          ops::VariableV2(s.WithOpName(names.back()), TensorShape({sizes[i]}), DType::kFloat);
      handles.push_back({v, v, Output()});
      init.push_back(ops::Assign(s, v, ops::Const(s, *value)).node);
      step.push_back(ops::Assign(s, v, ops::AddV2(s, v, ops::Const<float>(s, 1))).node);
    }
    ops::Group(root.WithOpName("init"), init);
    ops::Group(root.WithOpName("step"), step);
    EXPECT_TRUE(root.ok()) << root.status();
    session = std::make_unique<Session>(&graph, options);
    SaverOptions with = saver_options;
    with.var_list = handles;
    absl::StatusOr<std::unique_ptr<Saver>> made = Saver::Create(&graph, with);
    EXPECT_TRUE(made.ok()) << made.status();
    saver = *std::move(made);
  }
  absl::Status Run(const std::string& target) { return session->Run({}, {}, {target}, nullptr); }
  std::vector<Tensor> Values() {
    std::vector<Tensor> out;
    const absl::Status status = session->Run({}, names, {}, &out);
    EXPECT_TRUE(status.ok()) << status;
    return out;
  }
  // Whether every element is its initial value + `steps`.
  void ExpectSteps(float steps) {
    float next = 0;
    for (const Tensor& t : Values()) {
      for (const float f : t.span<float>()) ASSERT_EQ(f, next++ + steps);
    }
  }

  Graph graph;
  std::vector<VariableHandle> handles;
  std::vector<std::string> names;
  std::unique_ptr<Session> session;
  std::unique_ptr<Saver> saver;
};

}  // namespace ferry::testing

#endif  // FERRY_TESTS_GPU_GPU_MODEL_H_
