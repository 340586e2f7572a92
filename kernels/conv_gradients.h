// Gradients of convolutions, which are the same for every family of three ops that are named X (y
// from x and a filter), XBackpropInput and XBackpropFilter.
#ifndef FERRY_KERNELS_CONV_GRADIENTS_H_
#define FERRY_KERNELS_CONV_GRADIENTS_H_

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "runtime/graph/gradients.h"
#include "runtime/graph/ops.h"

namespace ferry {

// Another op of the family of c->node(), with its attributes: "" is the suffix of X itself, which
// takes `a` and `b`; the other two take `third` as well.
inline Output RelatedConv(GradientContext* c, const char* suffix, Output a, Output b,
                          Output third = {}) {
  absl::string_view family = c->node()->op();
  if (!absl::ConsumeSuffix(&family, "BackpropInput"))
    absl::ConsumeSuffix(&family, "BackpropFilter");
  NodeBuilder builder(c->scope(), absl::StrCat(family, suffix));
  builder.Input(a).Input(b);
  if (third.node) builder.Input(third);
  for (const char* name : {"strides", "use_cudnn_on_gpu", "padding", "explicit_paddings",
                           "data_format", "dilations"}) {
    auto it = c->node()->attrs().find(name);
    if (it != c->node()->attrs().end()) builder.AttrValue(name, it->second);
  }
  return builder.BuildOutput();
}

// Of X.
inline absl::Status ConvGradient(GradientContext* c) {
  const Scope& s = c->scope();
  const Output x = c->input(0), w = c->input(1), dy = c->grad(0);
  c->set_input_grad(0, RelatedConv(c, "BackpropInput", ShapeOf(s, x), w, dy));
  c->set_input_grad(1, RelatedConv(c, "BackpropFilter", x, ShapeOf(s, w), dy));
  return s.status();
}
// Of XBackpropInput: dx is linear in w and in dy.
inline absl::Status ConvBackpropInputGradient(GradientContext* c) {
  const Scope& s = c->scope();
  const Output w = c->input(1), dy = c->input(2), g = c->grad(0);
  c->set_input_grad(1, RelatedConv(c, "BackpropFilter", g, ShapeOf(s, w), dy));
  c->set_input_grad(2, RelatedConv(c, "", g, w));
  return s.status();
}
// Of XBackpropFilter: dw is linear in x and in dy.
inline absl::Status ConvBackpropFilterGradient(GradientContext* c) {
  const Scope& s = c->scope();
  const Output x = c->input(0), dy = c->input(2), g = c->grad(0);
  c->set_input_grad(0, RelatedConv(c, "BackpropInput", ShapeOf(s, x), g, dy));
  c->set_input_grad(2, RelatedConv(c, "", x, g));
  return s.status();
}

}  // namespace ferry

#endif  // FERRY_KERNELS_CONV_GRADIENTS_H_
