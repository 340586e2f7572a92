// Tests that messages survive their binary and text forms, with what TensorFlow writes that this
// project's messages don't know.

#include <google/protobuf/text_format.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include <string>

#include "proto/graph.pb.h"
#include "proto/meta_graph.pb.h"
#include "proto/tensor_bundle.pb.h"

namespace ferry {
namespace {

using ::google::protobuf::TextFormat;
using ::google::protobuf::util::MessageDifferencer;

constexpr char kGraph[] = R"pb(
  node {
    name: "c"
    op: "Const"
    attr {
      key: "dtype"
      value { type: DT_FLOAT }
    }
    attr {
      key: "value"
      value {
        tensor {
          dtype: DT_FLOAT
          tensor_shape { dim { size: 2 } }
          float_val: 1.5
        }
      }
    }
  }
  node {
    name: "v/Assign"
    op: "Assign"
    input: "v"
    input: "c"
    input: "^init"
    device: "/device:CPU:0"
    attr {
      key: "T"
      value { type: DT_FLOAT_REF }
    }
    attr {
      key: "_class"
      value { list { s: "loc:@v" } }
    }
  }
  versions { producer: 1987 min_consumer: 12 }
)pb";

TEST(ProtoTest, GraphSurvivesTextAndBinary) {
  proto::GraphDef graph;
  ASSERT_TRUE(TextFormat::ParseFromString(kGraph, &graph));
  ASSERT_EQ(graph.node_size(), 2);
  EXPECT_EQ(graph.node(0).attr().at("value").tensor().float_val(0), 1.5f);
  EXPECT_EQ(graph.node(1).attr().at("T").type(), proto::DT_FLOAT_REF);

  proto::GraphDef from_binary;
  ASSERT_TRUE(from_binary.ParseFromString(graph.SerializeAsString()));
  EXPECT_TRUE(MessageDifferencer::Equals(from_binary, graph));

  std::string text;
  ASSERT_TRUE(TextFormat::PrintToString(graph, &text));
  proto::GraphDef from_text;
  ASSERT_TRUE(TextFormat::ParseFromString(text, &from_text));
  EXPECT_TRUE(MessageDifferencer::Equals(from_text, graph));
}

TEST(ProtoTest, BundleEntryHasTheFormatsBytes) {
  proto::BundleEntryProto entry;
  entry.set_dtype(proto::DT_FLOAT);
  entry.mutable_shape()->add_dim()->set_size(3);
  entry.set_size(12);
  entry.set_crc32c(0x04030201);
  EXPECT_EQ(entry.SerializeAsString(),
            std::string("\x08\x01\x12\x04\x12\x02\x08\x03\x28\x0c\x35\x01\x02\x03\x04", 15));
}

TEST(ProtoTest, UnknownContentSurvives) {
  // Field 7 holds TensorFlow's object graph, a message; field 1000 belongs to nobody.
  const std::string bytes("\x3a\x04\x0a\x02\x08\x01\xc2\x3e\x01x", 10);
  proto::MetaGraphDef meta_graph;
  ASSERT_TRUE(meta_graph.ParseFromString(bytes));
  EXPECT_EQ(meta_graph.object_graph_def(), std::string("\x0a\x02\x08\x01", 4));
  EXPECT_EQ(meta_graph.SerializeAsString(), bytes);
}

}  // namespace
}  // namespace ferry
