// Rows of tables by their ids: tf.compat.v1.nn.embedding_lookup. The gradient for the table is
// sparse.
//
//   VariableHandle table = GetVariable(s, "table", {10000, 32}, DType::kFloat);
//   Output rows = EmbeddingLookup(s, table, words);   // words [batch] -> rows [batch, 32]
#ifndef FERRY_RUNTIME_GRAPH_EMBEDDING_H_
#define FERRY_RUNTIME_GRAPH_EMBEDDING_H_

#include <vector>

#include "runtime/graph/partitioned_variable.h"
#include "runtime/graph/scope.h"
#include "runtime/graph/variables.h"

namespace ferry {

// How the rows of a table are spread over its parts: row i is row i / n of part i % n, or the parts
// hold neighbouring rows, the first ones a row more where the number doesn't divide.
enum class PartitionStrategy { kMod, kDiv };

// `ids` of any shape, int32 or int64; the result has the shape ids.shape + row's shape. Ops are
// named after the scope's op name, "embedding_lookup" without one. InvalidArgument in the scope's
// status for no parts.
Output EmbeddingLookup(const Scope& s, const VariableHandle& table, Output ids);
Output EmbeddingLookup(const Scope& s, const std::vector<VariableHandle>& parts, Output ids,
                       PartitionStrategy strategy = PartitionStrategy::kMod);
// The parts of a GetPartitionedVariable hold neighbouring rows; kMod is what embedding_lookup does
// by default there, too.
inline Output EmbeddingLookup(const Scope& s, const PartitionedVariable& table, Output ids,
                              PartitionStrategy strategy = PartitionStrategy::kMod) {
  return EmbeddingLookup(s, table.parts, ids, strategy);
}

}  // namespace ferry

#endif  // FERRY_RUNTIME_GRAPH_EMBEDDING_H_
