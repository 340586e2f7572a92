// Graphs made here beside the same that TensorFlow made.
#ifndef FERRY_TESTS_GRAPH_COMPARE_H_
#define FERRY_TESTS_GRAPH_COMPARE_H_

#include "proto/graph.pb.h"
#include "runtime/graph/graph.h"

namespace ferry::testing {

// Expects both to have the same nodes, with the same inputs and attributes, but for the nodes of a
// Saver ("save/…"), the inside of the loss's gradient ("gradients/loss_grad/…"), and the zeros that
// TensorFlow makes (and never uses) for outputs without a gradient. Returns how many were compared.
int ExpectSameGraph(const proto::GraphDef& theirs, const Graph& ours);

}  // namespace ferry::testing

#endif  // FERRY_TESTS_GRAPH_COMPARE_H_
