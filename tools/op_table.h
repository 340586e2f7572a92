// What ops there are: for each its dtypes on each device, and whether it has a gradient.
// docs/ops.md is this table.
#ifndef FERRY_TOOLS_OP_TABLE_H_
#define FERRY_TOOLS_OP_TABLE_H_

#include <string>
#include <vector>

namespace ferry {

struct OpTableRow {
  std::string op;
  // Dtypes of the kernels, "T: floats ints; Tidx: int32 int64", "any", or "" without a kernel. Of
  // several attributes each is told by itself; not all combinations need be there. Words for what
  // needs no kernel, since it calls functions.
  std::string cpu, gpu;
  std::string gradient;  // "yes", "none" (nothing flows back), or "".
};

// By name. The GPU's kernels are among them when this program was built with CUDA.
std::vector<OpTableRow> OpTable();

// As a page in Markdown, which explains its words.
std::string OpTableMarkdown(const std::vector<OpTableRow>& rows);

}  // namespace ferry

#endif  // FERRY_TOOLS_OP_TABLE_H_
