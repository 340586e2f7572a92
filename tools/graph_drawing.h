// Draws graphs, in the language of Graphviz's `dot` and as SVG.
#ifndef FERRY_TOOLS_GRAPH_DRAWING_H_
#define FERRY_TOOLS_GRAPH_DRAWING_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "proto/graph.pb.h"

namespace ferry {

struct DrawingOptions {
  // Graphs of at most so many nodes are drawn as they are.
  int whole_limit = 32;
  // Larger ones are simplified: a variable stands for its initializer, reads and slots; constants
  // go into their consumer; gradients, optimizers and savers become a node each; and scopes are
  // opened, outer and small ones first, as long as no more nodes than this are to be drawn.
  int budget = 48;
};

// A node of the picture says its name, its op where the name doesn't, and its output's shape.
// Scopes are frames. Any graph can be drawn, ones that couldn't run too.
std::string GraphToDot(const proto::GraphDef& graph, const DrawingOptions& options = {});

// Runs `dot -Tsvg` on the text. NotFound when there is no such program on PATH,
// DeadlineExceeded when it takes too long (it is ended then), Internal with its words when it
// fails. Starts a process: not to be called where SIGCHLD is ignored.
absl::StatusOr<std::string> DotToSvg(absl::string_view dot,
                                     absl::Duration timeout = absl::Seconds(60));

}  // namespace ferry

#endif  // FERRY_TOOLS_GRAPH_DRAWING_H_
