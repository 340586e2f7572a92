// Writes an event file into the directory given, for event_test.py to read.
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "proto/graph.pb.h"
#include "runtime/base/status.h"
#include "saver/event_writer.h"

namespace ferry {
namespace {

absl::Status WriteEvents(const std::string& logdir) {
  FERRY_ASSIGN_OR_RETURN(std::unique_ptr<FileWriter> writer,
                         FileWriter::Open(FileSystem::Posix(), logdir));
  proto::GraphDef graph;
  graph.mutable_versions()->set_producer(1987);
  proto::NodeDef* const placeholder = graph.add_node();
  placeholder->set_name("x");
  placeholder->set_op("Placeholder");
  (*placeholder->mutable_attr())["dtype"].set_type(proto::DT_FLOAT);
  FERRY_RETURN_IF_ERROR(writer->AddGraph(graph));
  proto::MetaGraphDef meta_graph;
  *meta_graph.mutable_graph_def() = graph;
  FERRY_RETURN_IF_ERROR(writer->AddMetaGraph(meta_graph));
  for (int64_t step = 0; step < 100; ++step) {
    const float loss = 1 / static_cast<float>(step + 1);
    FERRY_RETURN_IF_ERROR(writer->AddScalar("training/loss", loss, step));
  }
  std::vector<float> values;
  for (int i = 0; i < 500; ++i) values.push_back(static_cast<float>(i * i % 97 - 48) * 0.25f);
  FERRY_RETURN_IF_ERROR(writer->AddHistogram("weights", values, 100));
  proto::SessionLog log;
  log.set_status(proto::SessionLog::START);
  FERRY_RETURN_IF_ERROR(writer->AddSessionLog(log, 50));
  for (int64_t step = 50; step < 60; ++step) {
    FERRY_RETURN_IF_ERROR(writer->AddScalar("training/loss", 0.5f, step));
  }
  return writer->Close();
}

}  // namespace
}  // namespace ferry

int main(int argc, char** argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: %s DIR\n", argv[0]);
    return 2;
  }
  const absl::Status status = ferry::WriteEvents(argv[1]);
  if (!status.ok()) fprintf(stderr, "%s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
