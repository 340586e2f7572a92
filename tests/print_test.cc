// Ops that show values: what Print and PrintV2 write, and what CheckNumerics says.
#include <stdlib.h>

#include <cmath>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/base/file_system.h"
#include "runtime/graph/gradients.h"
#include "runtime/graph/ops.h"
#include "runtime/session/session.h"

namespace ferry {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(PrintTest, WritesAndPassesOn) {
  Graph graph;
  Scope s(&graph);
  Output x = ops::ConstVector<float>(s, {1.5, 2, 3, 4, 5});
  Output data = ops::ConstVector<int32_t>(s, {7, 8});
  Output y = NodeBuilder(s, "Print")
                 .Input(x)
                 .Input(std::vector<Output>{x, data})
                 .Attr("message", "x and data: ")
                 .Attr("first_n", 2)
                 .BuildOutput();
  std::vector<Output> grads;
  ASSERT_TRUE(AddSymbolicGradients(s, {y}, {x}, &grads).ok());
  ASSERT_TRUE(s.ok()) << s.status();
  Session session(&graph);
  for (int run = 0; run < 3; ++run) {
    std::vector<Tensor> out;
    ::testing::internal::CaptureStderr();
    const absl::Status status = session.Run({}, std::vector<Output>{y}, {}, &out);
    const std::string text = ::testing::internal::GetCapturedStderr();
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_EQ(text, run < 2 ? "x and data: [1.5 2 3...][7 8]\n" : "");
    EXPECT_THAT(out[0].span<float>(), ElementsAre(1.5, 2, 3, 4, 5));
  }
  std::vector<Tensor> out;
  ASSERT_TRUE(session.Run({}, std::vector<Output>{grads[0]}, {}, &out).ok());
  EXPECT_THAT(out[0].span<float>(), ElementsAre(1, 1, 1, 1, 1));
}

TEST(PrintTest, AppendsToFiles) {
  std::string dir = ::testing::TempDir() + "print.XXXXXX";
  ASSERT_NE(mkdtemp(&dir[0]), nullptr);
  Graph graph;
  Scope s(&graph);
  Node* print = NodeBuilder(s, "PrintV2")
                    .Input(ops::Const(s, "line"))
                    .Attr("output_stream", "file://" + dir + "/log")
                    .Attr("end", ";")
                    .Build();
  Node* nowhere = NodeBuilder(s, "PrintV2")
                      .Input(ops::Const(s, "line"))
                      .Attr("output_stream", "file://" + dir + "/none/log")
                      .Build();
  Node* unknown = NodeBuilder(s, "PrintV2")
                      .Input(ops::Const(s, "line"))
                      .Attr("output_stream", "printer")
                      .Build();
  ASSERT_TRUE(s.ok()) << s.status();
  Session session(&graph);
  for (int run = 0; run < 2; ++run) {
    ASSERT_TRUE(session.Run({}, std::vector<Output>(), {print}, nullptr).ok());
  }
  EXPECT_EQ(*ReadFile(FileSystem::Posix(), dir + "/log"), "line;line;");
  EXPECT_THAT(std::string(session.Run({}, std::vector<Output>(), {nowhere}, nullptr).message()),
              HasSubstr("open for writing '" + dir + "/none/log'"));
  EXPECT_THAT(std::string(session.Run({}, std::vector<Output>(), {unknown}, nullptr).message()),
              HasSubstr("Unknown output stream: printer"));
}

TEST(CheckNumericsTest, TellsWhatThereIs) {
  for (const auto& [values, words] : std::vector<std::pair<std::vector<float>, std::string>>{
           {{1, -INFINITY}, "loss : Tensor had Inf values"},
           {{NAN, 1}, "loss : Tensor had NaN values"},
           {{NAN, INFINITY}, "loss : Tensor had Inf and NaN values"},
           {{1, 2}, ""}}) {
    Graph graph;
    Scope s(&graph);
    Output y = NodeBuilder(s, "CheckNumerics")
                   .Input(ops::ConstVector<float>(s, values))
                   .Attr("message", "loss")
                   .BuildOutput();
    Session session(&graph);
    std::vector<Tensor> out;
    const absl::Status status = session.Run({}, std::vector<Output>{y}, {}, &out);
    EXPECT_EQ(status.ok(), words.empty()) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(words));
  }
}

}  // namespace
}  // namespace ferry
