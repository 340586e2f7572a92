// get_variable, initializers, and the lists of variables.
#include "runtime/graph/variables.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "runtime/base/status.h"
#include "runtime/graph/cond.h"
#include "runtime/graph/gradients.h"
#include "runtime/graph/ops.h"

namespace ferry {
namespace {

// From this many elements on, zeros and ones are filled when the program runs rather than kept in
// the graph.
constexpr int64_t kMaxConstElements = 1000;

// The number as one element of `dtype`; uninitialised for a dtype without numbers.
Tensor NumberOf(DType dtype, double value) {
  switch (dtype) {
    case DType::kHalf:
      return Tensor::Scalar(FloatToHalf(static_cast<float>(value)));
    case DType::kBfloat16:
      return Tensor::Scalar(FloatToBfloat16(static_cast<float>(value)));
    case DType::kBool:
      return Tensor::Scalar(value != 0);
    case DType::kString:
      return value == 0 ? Tensor::Scalar(std::string()) : Tensor();
#define FERRY_CASE(E, T) \
  case DType::E:         \
    return Tensor::Scalar(static_cast<T>(value))
      FERRY_CASE(kFloat, float);
      FERRY_CASE(kDouble, double);
      FERRY_CASE(kInt8, int8_t);
      FERRY_CASE(kInt16, int16_t);
      FERRY_CASE(kInt32, int32_t);
      FERRY_CASE(kInt64, int64_t);
      FERRY_CASE(kUint8, uint8_t);
      FERRY_CASE(kUint16, uint16_t);
      FERRY_CASE(kUint32, uint32_t);
      FERRY_CASE(kUint64, uint64_t);
#undef FERRY_CASE
    default:
      return Tensor();
  }
}

Output NumberConst(const Scope& s, DType dtype, double value) {
  Tensor t = NumberOf(dtype, value);
  if (!t.initialized()) {
    s.UpdateStatus(InvalidArgument("no initial value ", value, " of type ", DTypeName(dtype)));
    return Output();
  }
  return ops::Const(s, t);
}

// A constant of `shape`, every element `value`, which the graph holds once.
Output SplatConst(const Scope& s, const TensorShape& shape, DType dtype, double value) {
  Tensor one = NumberOf(dtype, value);
  if (!one.initialized()) return NumberConst(s, dtype, value);
  proto::AttrValue attr = MakeAttr(one);
  if (shape.num_elements() == 0) {
    attr.mutable_tensor()->Clear();
    attr.mutable_tensor()->set_dtype(static_cast<proto::DataType>(dtype));
  }
  ToProto(PartialShape(shape), attr.mutable_tensor()->mutable_tensor_shape());
  return NodeBuilder(s, "Const").Attr("dtype", dtype).AttrValue("value", attr).BuildOutput();
}

Output ShapeConst(const Scope& s, const TensorShape& shape) {
  std::vector<int32_t> dims;
  for (int64_t d : shape.dims()) {
    if (d > std::numeric_limits<int32_t>::max()) {
      return ops::ConstVector(s, std::vector<int64_t>(shape.dims().begin(), shape.dims().end()));
    }
    dims.push_back(static_cast<int32_t>(d));
  }
  return ops::ConstVector(s, dims);
}

// The name of a scope for its own last op.
Scope AsScope(const Scope& s) { return s.WithOpName(s.prefix() + "/"); }

Initializer FilledWith(const char* name, double value) {
  return [name, value](const Scope& s, const TensorShape& shape, DType dtype) {
    const Scope sub = s.NewSubScope(name);
    if (shape.num_elements() < kMaxConstElements) {
      return SplatConst(AsScope(sub), shape, dtype, value);
    }
    Output dims = ShapeConst(sub.WithOpName("shape_as_tensor"), shape);
    return ops::Fill(AsScope(sub), dims, NumberConst(sub, dtype, value));
  };
}

// (Op * scale + shift), with the constants that scale and shift come from.
Output Scaled(const Scope& s, Output random, Output scale, Output shift) {
  return ops::AddV2(AsScope(s), ops::Mul(s.WithOpName("mul"), random, scale), shift);
}

Output Normal(const Scope& outer, const char* scope_name,
              Output (*op)(const Scope&, Output, DType, int64_t, int64_t), const TensorShape& shape,
              DType dtype, double mean, double stddev, std::optional<int64_t> seed) {
  const Scope s = outer.NewSubScope(scope_name);
  Output dims = ShapeConst(s.WithOpName("shape"), shape);
  Output shift = NumberConst(s.WithOpName("mean"), dtype, mean);
  Output scale = NumberConst(s.WithOpName("stddev"), dtype, stddev);
  const auto [seed1, seed2] = s.graph()->OpSeeds(seed);
  return Scaled(s, op(s, dims, dtype, seed1, seed2), scale, shift);
}

// How many numbers go into and out of one unit of a layer with weights of `shape`: the last two
// sizes, times the size of the window for convolutions.
std::pair<double, double> Fans(const TensorShape& shape) {
  const int rank = shape.rank();
  if (rank == 0) return {1, 1};
  if (rank == 1) return {static_cast<double>(shape.dim(0)), static_cast<double>(shape.dim(0))};
  double window = 1;
  for (int i = 0; i < rank - 2; ++i) window *= static_cast<double>(shape.dim(i));
  return {window * static_cast<double>(shape.dim(rank - 2)),
          window * static_cast<double>(shape.dim(rank - 1))};
}

double GlorotScale(const TensorShape& shape) {
  const auto [in, out] = Fans(shape);
  return 1.0 / std::max(1.0, (in + out) / 2);
}

// `node` again, named after the variable `var_name` that it is to initialise, with other inputs.
Node* CopyForInitialValue(const Scope& s, const Node& node, const std::string& var_name,
                          const std::vector<Output>& inputs) {
  AttrMap attrs = node.attrs();
  if (!s.colocation().empty()) attrs["_class"] = MakeAttr(s.colocation());
  // A value comes in where a reference did.
  const std::string op = node.op() == "RefSwitch" ? "Switch" : node.op();
  absl::StatusOr<Node*> copy =
      s.graph()->AddNode(s.graph()->UniqueName(absl::StrCat(node.name(), "_", var_name)), op,
                         std::move(attrs), inputs, {}, node.device());
  s.UpdateStatus(copy.status());
  return copy.ok() ? *copy : nullptr;
}

// Whether a variable is initialized is asked of the variable itself. TensorFlow doesn't replace
// what is read of a resource variable, either.
bool IsAskedDirectly(const Node& node) {
  return node.op() == "IsVariableInitialized" || node.op() == "VarIsInitializedOp" ||
         node.op() == "ReadVariableOp";
}

// The variable of the graph that `node` is; empty for one in no collection.
VariableHandle ListedVariable(const Node* node) {
  for (const char* collection : {kGlobalVariables, kLocalVariables}) {
    absl::StatusOr<std::vector<VariableHandle>> all = VariablesOf(*node->graph(), collection);
    if (!all.ok()) continue;
    for (const VariableHandle& v : *all) {
      if (v.ref.node == node) return v;
    }
  }
  return VariableHandle();
}

// `value`, with every variable that it depends on replaced by its InitializedValue; the nodes
// between are copied. A value that depends on a loop stays as it is.
Output SafeInitialValue(const Scope& s, Output value, const std::string& var_name) {
  if (!s.ok()) return Output();
  // Ancestors, each after its inputs.
  std::vector<Node*> order;
  absl::flat_hash_map<Node*, bool> done;
  std::vector<std::pair<Node*, int>> path = {{value.node, 0}};
  done[value.node] = false;
  while (!path.empty()) {
    auto& [node, next] = path.back();
    if (IsAskedDirectly(*node) || next == node->num_inputs()) {
      done[node] = true;
      order.push_back(node);
      path.pop_back();
      continue;
    }
    Node* const input = node->input(next++).node;
    auto [it, fresh] = done.emplace(input, false);
    if (fresh) {
      path.emplace_back(input, 0);
    } else if (!it->second) {
      return value;
    }
  }
  absl::flat_hash_map<Node*, Node*> safe;
  for (Node* node : order) {
    Node*& replaced = safe[node];
    replaced = node;
    if (node->op() == "VariableV2" || node->op() == "Variable") {
      const VariableHandle v = ListedVariable(node);
      if (v && v.initial_value.node != nullptr) replaced = InitializedValue(s, v).node;
    } else if (!IsAskedDirectly(*node)) {
      std::vector<Output> inputs = node->inputs();
      for (Output& o : inputs) o.node = safe[o.node];
      if (inputs != node->inputs()) replaced = CopyForInitialValue(s, *node, var_name, inputs);
    }
    if (!s.ok()) return Output();
  }
  return Output(safe[value.node], value.index);
}

// Where a new variable goes and how the value that it starts with is made.
struct NewVariable {
  std::string full_name;
  PartialShape shape;
  DType dtype;
  // Given the scope of the variable's own name.
  std::function<Output(const Scope&)> initial_value;
  // Whether the initial value and the variable name the variable as their colocation group (where
  // the scope has no other).
  bool own_group;
  int aggregation = proto::VARIABLE_AGGREGATION_NONE;
};

// The nodes of a resource variable, after its initial value's. `s` is the scope of its own name.
void MakeResource(const Scope& s, const NewVariable& v, Output assigned, VariableHandle* h) {
  h->ref = NodeBuilder(AsScope(s), "VarHandleOp")
               .Attr("shape", v.shape)
               .Attr("dtype", v.dtype)
               .Attr("shared_name", v.full_name)
               .Attr("debug_name", v.full_name + "/")
               .BuildOutput();
  const Scope plain = s.ClearColocation();
  ops::VarIsInitializedOp(plain.WithPrefix(v.full_name + "/IsInitialized"), h->ref);
  h->initializer = ops::AssignVariableOp(plain.WithOpName("Assign"), h->ref, assigned);
  h->read = ops::ReadVariableOp(plain.WithPrefix(v.full_name + "/Read"), h->ref, v.dtype);
}

VariableHandle Create(const Scope& scope, const NewVariable& v, const VariableOptions& options) {
  if (!scope.ok()) return VariableHandle();
  // Before any node is made: a graph with half of a variable can't be imported again.
  if (!IsValidNodeName(v.full_name)) {
    scope.UpdateStatus(InvalidArgument("'", v.full_name, "' is not a valid variable name"));
    return VariableHandle();
  }
  Scope s = scope.WithNoControlDependencies().WithPrefix(v.full_name);
  const std::vector<std::string> outer = scope.colocation();
  if (outer.empty() && v.own_group) s = s.WithColocation({absl::StrCat("loc:@", v.full_name)});
  VariableHandle h;
  h.trainable = options.trainable;
  h.slice = options.slice;
  h.initial_value = v.initial_value(s);
  const Output assigned = SafeInitialValue(s.WithColocation(outer), h.initial_value, v.full_name);
  if (options.use_resource) {
    MakeResource(outer.empty() ? s.WithColocation({absl::StrCat("loc:@", v.full_name)}) : s, v,
                 assigned, &h);
  } else {
    h.ref = ops::VariableV2(AsScope(s), v.shape, v.dtype);
    s = s.WithColocation(outer).ColocateWith(h.ref.node);
    Output assign = ops::Assign(s, h.ref, assigned);
    h.initializer = assign.node;
    h.read = ops::Identity(s.WithOpName("read"), h.ref);
  }
  if (!scope.ok()) return VariableHandle();

  proto::VariableDef def = ToProto(h);
  def.set_aggregation(static_cast<proto::VariableAggregation>(v.aggregation));
  std::vector<std::string> collections = options.collections;
  const auto listed = std::find(collections.begin(), collections.end(), kTrainableVariables);
  if (options.trainable && listed == collections.end()) collections.push_back(kTrainableVariables);
  for (const std::string& c : collections) {
    scope.UpdateStatus(AddVariableToCollection(scope.graph(), c, def));
  }
  return h;
}

std::string FullName(const Scope& s, const std::string& name) {
  return s.prefix().empty() ? name : absl::StrCat(s.prefix(), "/", name);
}

// The nodes around a variable that exists, found by their names.
absl::StatusOr<VariableHandle> Existing(Node* node) {
  proto::VariableDef def;
  def.set_variable_name(absl::StrCat(node->name(), ":0"));
  const bool resource = node->op() == "VarHandleOp";
  def.set_is_resource(resource);
  def.set_snapshot_name(
      absl::StrCat(node->name(), resource ? "/Read/ReadVariableOp:0" : "/read:0"));
  def.set_initializer_name(absl::StrCat(node->name(), "/Assign"));
  Node* assign = node->graph()->FindNode(def.initializer_name());
  if (assign != nullptr && assign->num_inputs() == 2) {
    def.set_initial_value_name(assign->input(1).name());
  }
  FERRY_ASSIGN_OR_RETURN(auto trainable,
                         GetVariableCollection(*node->graph(), kTrainableVariables));
  def.set_trainable(std::any_of(trainable.begin(), trainable.end(), [&](const auto& other) {
    return other.variable_name() == def.variable_name();
  }));
  return FromProto(*node->graph(), def);
}

// The variables whose tensors the names are.
absl::StatusOr<std::vector<VariableHandle>> VariablesNamed(
    const Graph& graph, const std::string& collection,
    const proto::CollectionDef::NodeList& names) {
  // With their slices, and initializers by whatever name, where another collection tells of them.
  absl::flat_hash_map<const Node*, VariableHandle> known;
  for (const char* const of : {kLocalVariables, kGlobalVariables}) {
    FERRY_ASSIGN_OR_RETURN(const std::vector<VariableHandle> some, VariablesOf(graph, of));
    for (const VariableHandle& v : some) known[v.ref.node] = v;
  }
  std::vector<VariableHandle> all;
  for (const std::string& name : names.value()) {
    Node* const node = graph.FindNode(name.substr(0, name.rfind(':')));
    if (node == nullptr) {
      return NotFound("collection '", collection, "': '", name, "' is not in the graph");
    }
    const auto it = known.find(node);
    if (it != known.end()) {
      all.push_back(it->second);
      continue;
    }
    if (node->op() != "VariableV2" && node->op() != "Variable" && node->op() != "VarHandleOp") {
      return FailedPrecondition("collection '", collection, "': '", name, "' (", node->op(),
                                ") is no variable");
    }
    absl::StatusOr<VariableHandle> v = Existing(node);
    if (!v.ok()) return Annotate(v.status(), absl::StrCat("collection '", collection, "'"));
    all.push_back(*std::move(v));
  }
  return all;
}

absl::StatusOr<VariableHandle> Reused(Node* node, const TensorShape& shape, DType dtype) {
  FERRY_ASSIGN_OR_RETURN(VariableHandle h, Existing(node));
  if (!h.shape().CompatibleWith(shape)) {
    return InvalidArgument("Trying to share variable ", h.name(), ", but specified shape ",
                           shape.DebugString(), " and found shape ", h.shape().DebugString());
  }
  if (h.dtype() != dtype) {
    return InvalidArgument("Trying to share variable ", h.name(), ", but specified dtype ",
                           DTypeName(dtype), " and found dtype ", DTypeName(h.dtype()));
  }
  return h;
}

}  // namespace

Initializer ZerosInitializer() { return FilledWith("zeros", 0); }
Initializer OnesInitializer() { return FilledWith("ones", 1); }

Initializer ConstantInitializer(double value) {
  return [value](const Scope& s, const TensorShape& shape, DType dtype) {
    return SplatConst(s, shape, dtype, value);
  };
}

Initializer RandomUniformInitializer(double min, double max, std::optional<int64_t> seed) {
  return [=](const Scope& outer, const TensorShape& shape, DType dtype) {
    const Scope s = outer.NewSubScope("random_uniform");
    Output dims = ShapeConst(s.WithOpName("shape"), shape);
    Output low = NumberConst(s.WithOpName("min"), dtype, min);
    Output high = NumberConst(s.WithOpName("max"), dtype, max);
    const auto [seed1, seed2] = s.graph()->OpSeeds(seed);
    if (IsInteger(dtype)) {
      return NodeBuilder(AsScope(s), "RandomUniformInt")
          .Input(dims)
          .Input(low)
          .Input(high)
          .Attr("seed", seed1)
          .Attr("seed2", seed2)
          .BuildOutput();
    }
    Output random = ops::RandomUniform(s, dims, dtype, seed1, seed2);
    return Scaled(s, random, ops::Sub(s.WithOpName("sub"), high, low), low);
  };
}

Initializer RandomNormalInitializer(double mean, double stddev, std::optional<int64_t> seed) {
  return [=](const Scope& s, const TensorShape& shape, DType dtype) {
    return Normal(s, "random_normal", ops::RandomStandardNormal, shape, dtype, mean, stddev, seed);
  };
}

Initializer TruncatedNormalInitializer(double mean, double stddev, std::optional<int64_t> seed) {
  return [=](const Scope& s, const TensorShape& shape, DType dtype) {
    return Normal(s, "truncated_normal", ops::TruncatedNormal, shape, dtype, mean, stddev, seed);
  };
}

double GlorotUniformLimit(const TensorShape& shape) { return std::sqrt(3 * GlorotScale(shape)); }

Initializer GlorotUniformInitializer(std::optional<int64_t> seed) {
  return [=](const Scope& s, const TensorShape& shape, DType dtype) {
    const double limit = GlorotUniformLimit(shape);
    return RandomUniformInitializer(-limit, limit, seed)(s, shape, dtype);
  };
}

Initializer GlorotNormalInitializer(std::optional<int64_t> seed) {
  return [=](const Scope& s, const TensorShape& shape, DType dtype) {
    // The standard deviation of a standard normal that is truncated at two of its own.
    constexpr double kTruncatedStddev = .87962566103423978;
    const double stddev = std::sqrt(GlorotScale(shape)) / kTruncatedStddev;
    return TruncatedNormalInitializer(0, stddev, seed)(s, shape, dtype);
  };
}

VariableHandle GetVariable(const Scope& s, const std::string& name, const TensorShape& shape,
                           DType dtype, const VariableOptions& options) {
  if (!s.ok()) return VariableHandle();
  const std::string full = FullName(s, name);
  if (absl::StatusOr<TensorShape> sound = TensorShape::Make(shape.dims()); !sound.ok()) {
    s.UpdateStatus(Annotate(sound.status(), absl::StrCat("variable '", full, "'")));
    return VariableHandle();
  }
  Node* there = s.graph()->FindNode(full);
  if (there != nullptr) {
    if (options.reuse == Reuse::kNo) {
      s.UpdateStatus(AlreadyExists("Variable ", full, " already exists, disallowed"));
      return VariableHandle();
    }
    absl::StatusOr<VariableHandle> h = Reused(there, shape, dtype);
    s.UpdateStatus(h.status());
    return h.ok() ? *h : VariableHandle();
  }
  if (options.reuse == Reuse::kYes) {
    s.UpdateStatus(InvalidArgument("Variable ", full, " does not exist"));
    return VariableHandle();
  }
  Initializer initializer = options.initializer;
  if (!initializer) {
    if (IsFloating(dtype)) {
      initializer = GlorotUniformInitializer();
    } else if (IsInteger(dtype) || dtype == DType::kBool) {
      initializer = ZerosInitializer();
    } else {
      s.UpdateStatus(InvalidArgument("An initializer for variable ", full, " of ", DTypeName(dtype),
                                     " is required"));
      return VariableHandle();
    }
  }
  NewVariable v{s.graph()->UniqueName(full), shape, dtype,
                [&](const Scope& own) {
                  return initializer(own.NewSubScope("Initializer").WithDevice(""), shape, dtype);
                },
                /*own_group=*/true};
  const VariableHandle h = Create(s, v, options);
  if (h && options.regularizer) {
    const Scope own = s.WithPrefix("").WithNoControlDependencies().ColocateWith(h.ref.node);
    Output loss = options.regularizer(own.NewSubScope(h.name() + "/Regularizer"), h.read);
    if (loss.node == nullptr) return s.ok() ? h : VariableHandle();
    s.UpdateStatus(AddNodeToCollection(s.graph(), kRegularizationLosses, loss.name()));
  }
  return h;
}

Regularizer L1Regularizer(double scale) {
  return [scale](const Scope& s, Output weights) {
    const Scope sub = s.NewSubScope("l1_regularizer");
    Output factor = NumberConst(sub.WithOpName("scale"), BaseType(weights.dtype()), scale);
    Output sum = ops::ReduceSum(sub, ops::Abs(sub, weights));
    return ops::Mul(AsScope(sub), factor, sum);
  };
}

Regularizer L2Regularizer(double scale) {
  return [scale](const Scope& s, Output weights) {
    const Scope sub = s.NewSubScope("l2_regularizer");
    Output factor = NumberConst(sub.WithOpName("scale"), BaseType(weights.dtype()), scale);
    return ops::Mul(AsScope(sub), factor, ops::L2Loss(sub, weights));
  };
}

Regularizer L1L2Regularizer(double scale_l1, double scale_l2) {
  return [=](const Scope& s, Output weights) {
    const Scope sub = s.NewSubScope("l1_l2_regularizer");
    Output l1 = L1Regularizer(scale_l1)(sub, weights);
    return ops::AddN(AsScope(sub), {l1, L2Regularizer(scale_l2)(sub, weights)});
  };
}

Output RegularizationLoss(const Scope& s) {
  const Scope named = s.DefaultOpName("total_regularization_loss");
  absl::StatusOr<std::vector<std::string>> names =
      GetNodeCollection(*s.graph(), kRegularizationLosses);
  s.UpdateStatus(names.status());
  if (!names.ok()) return Output();
  std::vector<Output> losses;
  for (const std::string& name : *names) {
    absl::StatusOr<Output> loss = s.graph()->FindOutput(name);
    s.UpdateStatus(loss.status());
    if (!loss.ok()) return Output();
    losses.push_back(*loss);
  }
  if (losses.empty()) return ops::Const<float>(named, 0);
  return ops::AddN(named, losses);
}

VariableHandle MakeVariable(const Scope& s, const std::string& name, const Tensor& initial_value,
                            const VariableOptions& options) {
  if (!s.ok()) return VariableHandle();
  NewVariable v{
      s.graph()->UniqueName(FullName(s, name)), initial_value.shape(), initial_value.dtype(),
      [&](const Scope& own) { return ops::Const(own.WithOpName("initial_value"), initial_value); },
      /*own_group=*/false};
  return Create(s, v, options);
}

VariableHandle MakeVariable(const Scope& s, const std::string& name, Output initial_value,
                            const VariableOptions& options) {
  if (!s.ok()) return VariableHandle();
  const std::string full = FullName(s, name);
  if (initial_value.node == nullptr || !initial_value.shape().fully_defined()) {
    s.UpdateStatus(
        InvalidArgument("initial_value must have a shape specified: variable '", full, "'"));
    return VariableHandle();
  }
  NewVariable v{s.graph()->UniqueName(full), initial_value.shape(), BaseType(initial_value.dtype()),
                [&](const Scope&) { return initial_value; },
                /*own_group=*/false};
  return Create(s, v, options);
}

Output InitializedValue(const Scope& scope, const VariableHandle& v) {
  const Scope s = scope.WithNoControlDependencies();
  if (v.initial_value.node == nullptr) {
    s.UpdateStatus(
        FailedPrecondition("the initial value of variable '", v.name(), "' is not known"));
    return Output();
  }
  if (v.is_resource()) {
    return Cond(
        s, ops::VarIsInitializedOp(s, v.ref),
        [&](const Scope& b) {
          return ops::Identity(b, ops::ReadVariableOp(b.NewSubScope("Read"), v.ref, v.dtype()));
        },
        [&](const Scope&) { return v.initial_value; });
  }
  Output initialized =
      ops::IsVariableInitialized(s.ClearColocation().ColocateWith(v.ref.node), v.ref);
  return Cond(
      s, initialized, [&](const Scope& b) { return ops::Identity(b.WithOpName("read"), v.ref); },
      [&](const Scope&) { return v.initial_value; });
}

VariableHandle MakeSlot(const Scope& s, const VariableHandle& primary, const std::string& name,
                        const Initializer& initializer) {
  if (!s.ok()) return VariableHandle();
  absl::StatusOr<TensorShape> shape = primary.shape().ToTensorShape();
  if (!shape.ok()) {
    s.UpdateStatus(Annotate(shape.status(), absl::StrCat("slot of variable ", primary.name())));
    return VariableHandle();
  }
  VariableOptions options;
  options.trainable = false;
  options.initializer = initializer;
  options.use_resource = primary.is_resource();
  const std::string full = s.graph()->UniqueName(name, /*mark_as_used=*/false);
  if (primary.slice) {
    // The slots of all parts are parts of one slot.
    auto slice = std::make_shared<proto::SaveSliceInfoDef>(*primary.slice);
    absl::string_view own = full;
    absl::ConsumePrefix(&own, primary.name() + "/");
    slice->set_full_name(absl::StrCat(primary.slice->full_name(), "/", own));
    options.slice = std::move(slice);
  }
  const Scope root = s.WithPrefix("").ClearColocation().ColocateWith(primary.ref.node);
  return GetVariable(root, full, *shape, primary.dtype(), options);
}

absl::StatusOr<std::vector<VariableHandle>> VariablesOf(const Graph& graph,
                                                        const std::string& collection) {
  const auto listed = graph.collections().find(collection);
  if (listed != graph.collections().end() && listed->second.has_node_list() &&
      !HoldsVariableDefs(collection)) {
    return VariablesNamed(graph, collection, listed->second.node_list());
  }
  FERRY_ASSIGN_OR_RETURN(auto defs, GetVariableCollection(graph, collection));
  std::vector<VariableHandle> all;
  for (const proto::VariableDef& def : defs) {
    absl::StatusOr<VariableHandle> h = FromProto(graph, def);
    if (!h.ok()) return Annotate(h.status(), absl::StrCat("collection '", collection, "'"));
    all.push_back(*std::move(h));
  }
  return all;
}

proto::VariableDef ToProto(const VariableHandle& v) {
  proto::VariableDef def;
  def.set_variable_name(v.ref.name());
  def.set_initializer_name(v.initializer->name());
  def.set_snapshot_name(v.read.name());
  if (v.initial_value.node != nullptr) def.set_initial_value_name(v.initial_value.name());
  def.set_trainable(v.trainable);
  def.set_is_resource(v.is_resource());
  if (v.slice) *def.mutable_save_slice_info_def() = *v.slice;
  return def;
}

absl::StatusOr<VariableHandle> FromProto(const Graph& graph, const proto::VariableDef& def) {
  VariableHandle h;
  auto find = [&](const std::string& name, Output* out) -> absl::Status {
    absl::StatusOr<Output> found = graph.FindOutput(name);
    if (!found.ok()) {
      return Annotate(found.status(), absl::StrCat("variable '", def.variable_name(), "'"));
    }
    if (found->index < 0) {
      return InvalidArgument("variable '", def.variable_name(), "': '", name, "' is no tensor");
    }
    *out = *found;
    return absl::OkStatus();
  };
  FERRY_RETURN_IF_ERROR(find(def.variable_name(), &h.ref));
  FERRY_RETURN_IF_ERROR(find(def.snapshot_name(), &h.read));
  if (!def.initial_value_name().empty()) {
    FERRY_RETURN_IF_ERROR(find(def.initial_value_name(), &h.initial_value));
  }
  h.initializer = graph.FindNode(def.initializer_name());
  if (h.initializer == nullptr) {
    return NotFound("variable '", def.variable_name(), "': its initializer '",
                    def.initializer_name(), "' is not in the graph");
  }
  h.trainable = def.trainable();
  if (def.has_save_slice_info_def()) {
    h.slice = std::make_shared<proto::SaveSliceInfoDef>(def.save_slice_info_def());
  }
  return h;
}

Output ReadValue(const Scope& s, const VariableHandle& v) {
  return v.is_resource() ? ops::ReadVariableOp(s, v.ref, v.dtype()) : ops::Identity(s, v.ref);
}
Output IsInitialized(const Scope& s, const VariableHandle& v) {
  return v.is_resource() ? ops::VarIsInitializedOp(s, v.ref) : ops::IsVariableInitialized(s, v.ref);
}
Node* AssignTo(const Scope& s, const VariableHandle& v, Output value) {
  return v.is_resource() ? ops::AssignVariableOp(s, v.ref, value)
                         : ops::Assign(s, v.ref, value).node;
}
Node* AssignAddTo(const Scope& s, const VariableHandle& v, Output value) {
  return v.is_resource() ? ops::AssignAddVariableOp(s, v.ref, value)
                         : ops::AssignAdd(s, v.ref, value).node;
}
Node* AssignSubTo(const Scope& s, const VariableHandle& v, Output value) {
  return v.is_resource() ? ops::AssignSubVariableOp(s, v.ref, value)
                         : ops::AssignSub(s, v.ref, value).node;
}

Node* VariablesInitializer(const Scope& s, const std::vector<VariableHandle>& variables) {
  std::vector<Node*> initializers;
  for (const VariableHandle& v : variables) initializers.push_back(v.initializer);
  return ops::Group(s.DefaultOpName("init"), initializers);
}

Node* GlobalVariablesInitializer(const Scope& s) {
  absl::StatusOr<std::vector<VariableHandle>> all = GlobalVariables(*s.graph());
  s.UpdateStatus(all.status());
  return s.ok() ? VariablesInitializer(s, *all) : nullptr;
}

Node* LocalVariablesInitializer(const Scope& s) {
  absl::StatusOr<std::vector<VariableHandle>> all = VariablesOf(*s.graph(), kLocalVariables);
  s.UpdateStatus(all.status());
  return s.ok() ? VariablesInitializer(s, *all) : nullptr;
}

Output ReportUninitializedVariables(const Scope& scope,
                                    const std::vector<VariableHandle>& variables) {
  const Scope s = scope.NewSubScope("report_uninitialized_variables").WithDevice("/device:CPU:0");
  std::vector<Output> initialized;
  std::vector<std::string> names;
  for (const VariableHandle& v : variables) {
    initialized.push_back(IsInitialized(s, v));
    names.push_back(v.name());
  }
  const Output all = ops::ConstVector<std::string>(s, names);
  if (names.empty()) return all;
  const Output missing = ops::LogicalNot(s, ops::Pack(s.WithOpName("stack"), initialized));
  const Output where = NodeBuilder(s, "Where").Input(missing).BuildOutput();
  const Output indices = ops::Reshape(s, where, ops::ConstVector<int32_t>(s, {-1}));
  return ops::GatherV2(s, all, indices, ops::Const<int32_t>(s, 0));
}

Output ReportUninitializedVariables(const Scope& s) {
  std::vector<VariableHandle> all;
  for (const char* collection : {kGlobalVariables, kLocalVariables}) {
    absl::StatusOr<std::vector<VariableHandle>> some = VariablesOf(*s.graph(), collection);
    s.UpdateStatus(some.status());
    if (!some.ok()) return Output();
    all.insert(all.end(), some->begin(), some->end());
  }
  return ReportUninitializedVariables(s, all);
}

namespace {

// Of the graph, whatever it is.
absl::StatusOr<VariableHandle> FindGlobalStep(const Graph& graph) {
  FERRY_ASSIGN_OR_RETURN(auto all, VariablesOf(graph, kGlobalStep));
  if (all.size() > 1) {
    return FailedPrecondition("there are ", all.size(), " global steps in collection '",
                              kGlobalStep, "'; expected one");
  }
  if (!all.empty()) return all[0];
  // Graphs that were imported without their collections.
  Node* node = graph.FindNode("global_step");
  if (node == nullptr ||
      (node->op() != "VariableV2" && node->op() != "Variable" && node->op() != "VarHandleOp")) {
    return VariableHandle();
  }
  return Existing(node);
}

}  // namespace

absl::StatusOr<VariableHandle> GetGlobalStep(const Graph& graph) {
  FERRY_ASSIGN_OR_RETURN(const VariableHandle step, FindGlobalStep(graph));
  if (!step) return step;
  if (step.dtype() != DType::kInt64 && step.dtype() != DType::kInt32) {
    return InvalidArgument("Existing \"global_step\" does not have integer type: '", step.name(),
                           "' is ", DTypeName(step.dtype()));
  }
  if (!step.shape().CompatibleWith(PartialShape::Scalar())) {
    return InvalidArgument("Existing \"global_step\" is not scalar: '", step.name(), "' is ",
                           step.shape().DebugString());
  }
  return step;
}

VariableHandle GetOrCreateGlobalStep(const Scope& s) {
  if (!s.ok()) return VariableHandle();
  absl::StatusOr<VariableHandle> there = GetGlobalStep(*s.graph());
  s.UpdateStatus(there.status());
  if (!there.ok() || *there) return there.ok() ? *there : VariableHandle();
  const TensorShape scalar;
  VariableOptions options;
  options.trainable = false;
  options.collections = {kGlobalVariables, kGlobalStep};
  NewVariable v{s.graph()->UniqueName("global_step"),
                scalar,
                DType::kInt64,
                [&](const Scope& own) {
                  return ZerosInitializer()(own.NewSubScope("Initializer").WithDevice(""), scalar,
                                            DType::kInt64);
                },
                /*own_group=*/true,
                proto::VARIABLE_AGGREGATION_ONLY_FIRST_REPLICA};
  return Create(s.ClearColocation(), v, options);
}

}  // namespace ferry
