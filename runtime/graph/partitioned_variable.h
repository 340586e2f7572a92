// Partitioned variables: one variable to the checkpoint, several in the graph, split along one
// axis, as tf.compat.v1.get_variable makes them with a partitioner.
//
//   PartitionedVariable w = GetPartitionedVariable(s, "w", {5, 3}, DType::kFloat,
//                                                  FixedSizePartitions({5, 3}, 2));
//   w.parts[0];                                // w/part_0, [3,3]; w/part_1 is [2,3]
//   Output y = ops::MatMul(s, x, w.AsTensor(s));
//
// Their VariableDefs say of which variable they are and where they lie in it, so that a Saver saves
// each as a slice of "w". It restores them from a checkpoint in which w is whole or split any other
// way; and a program whose w is whole, or split differently, restores what this one saved.
#ifndef FERRY_RUNTIME_GRAPH_PARTITIONED_VARIABLE_H_
#define FERRY_RUNTIME_GRAPH_PARTITIONED_VARIABLE_H_

#include <string>
#include <vector>

#include "runtime/graph/variables.h"

namespace ferry {

struct PartitionedVariable {
  std::string name;  // The whole's, "scope/w".
  TensorShape shape;
  int axis = 0;                       // Along which it is split.
  std::vector<VariableHandle> parts;  // In their order along the axis. Empty after an error.

  // The whole value: the parts' reads joined, under "<name>/ConcatPartitions", and an Identity with
  // the variable's name (made unique when called again).
  Output AsTensor(const Scope& s) const;
};

// How many parts along each axis: `parts`, but no more than there are rows, along `axis`; 1 along
// the others. tf.compat.v1.fixed_size_partitioner.
std::vector<int> FixedSizePartitions(const TensorShape& shape, int parts, int axis = 0);

// `partitions` has a number for each axis, of which at most one is above 1; parts differ in length
// by at most one, the longer ones first. The initializer makes each part by itself, from the part's
// shape; the default one draws from the distribution that suits the whole. Options as of
// GetVariable (reuse too). An error is the scope's status: InvalidArgument for partitions that
// don't fit the shape.
PartitionedVariable GetPartitionedVariable(const Scope& s, const std::string& name,
                                           const TensorShape& shape, DType dtype,
                                           const std::vector<int>& partitions,
                                           const VariableOptions& options = {});

}  // namespace ferry

#endif  // FERRY_RUNTIME_GRAPH_PARTITIONED_VARIABLE_H_
