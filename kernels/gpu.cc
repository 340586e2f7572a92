// The runtime's side of gpu.h.
#include "kernels/gpu.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kernels/gpu_array.h"
#include "kernels/gpu_host.h"
#include "runtime/base/status.h"
#include "runtime/device/gpu_device.h"
#include "runtime/op/kernel.h"
#include "runtime/tensor/tensor.h"

namespace ferry {
namespace gpu {
namespace {

absl::Status ToStatus(Error error, const std::string& message) {
  switch (error) {
    case Error::kInvalidArgument:
      return absl::InvalidArgumentError(message);
    case Error::kOutOfRange:
      return absl::OutOfRangeError(message);
    case Error::kFailedPrecondition:
      return absl::FailedPreconditionError(message);
    case Error::kUnimplemented:
      return absl::UnimplementedError(message);
    case Error::kInternal:
      break;
  }
  return absl::InternalError(message);
}

template <typename T>
bool Get(const KernelConstruction& c, const char* name, T* out) {
  absl::StatusOr<T> value = c.Attr<T>(name);
  if (value.ok()) *out = *std::move(value);
  return value.ok();
}

}  // namespace

// ---- Setup ----

bool Setup::Attr(const char* name, bool* out) { return Get(c_, name, out); }
bool Setup::Attr(const char* name, int64_t* out) { return Get(c_, name, out); }
bool Setup::Attr(const char* name, float* out) { return Get(c_, name, out); }
bool Setup::Attr(const char* name, DType* out) { return Get(c_, name, out); }
bool Setup::Attr(const char* name, std::string* out) { return Get(c_, name, out); }
bool Setup::Attr(const char* name, std::vector<int64_t>* out) { return Get(c_, name, out); }
std::string Setup::op() const { return c_.op(); }
std::string Setup::node_name() const { return c_.node_name(); }
int Setup::num_inputs() const { return static_cast<int>(c_.input_types().size()); }
int Setup::num_outputs() const { return static_cast<int>(c_.output_types().size()); }
DType Setup::input_type(int i) const { return BaseType(c_.input_types()[static_cast<size_t>(i)]); }
DType Setup::output_type(int i) const {
  return BaseType(c_.output_types()[static_cast<size_t>(i)]);
}
bool Setup::Fail(Error error, const std::string& message) {
  error_ = error;
  message_ = message;
  return false;
}

// ---- Call ----

struct Call::State {
  absl::Status status;
  std::vector<Variable*> locked;
  std::unique_ptr<VariableLocks> locks;
  bool blas = false;

  bool Note(absl::Status s) {
    if (s.ok()) return true;
    KeepFirst(&status, std::move(s));
    return false;
  }
};

Call::Call(KernelContext* c) : c_(c), state_(new State) {}
Call::~Call() {
  if (state_->blas) c_->gpu()->UnlockBlas();
}

int Call::num_inputs() const { return c_->num_inputs(); }
int Call::num_outputs() const { return c_->num_outputs(); }

Input Call::input(int i) const {
  const Tensor& t = c_->input(i);
  Input in;
  in.data = t.raw();
  in.dtype = t.dtype();
  in.rank = t.rank();
  in.dims = t.shape().dims().data();
  in.elements = t.num_elements();
  return in;
}

bool Call::HostInts(int i, std::vector<int64_t>* out) {
  auto ints = c_->InputAsInts(i);
  if (!ints.ok()) return state_->Note(ints.status());
  out->assign(ints->begin(), ints->end());
  return true;
}

bool Call::HostInt(int i, int64_t* out) {
  absl::StatusOr<int64_t> value = c_->InputAsInt(i);
  if (value.ok()) *out = *value;
  return state_->Note(value.status());
}

bool Call::HostShape(int i, std::vector<int64_t>* out) {
  absl::StatusOr<TensorShape> shape = c_->InputAsShape(i);
  if (shape.ok()) out->assign(shape->dims().begin(), shape->dims().end());
  return state_->Note(shape.status());
}

void* Call::Output(int i, const int64_t* dims, int rank) {
  absl::StatusOr<TensorShape> shape =
      TensorShape::Make(absl::MakeConstSpan(dims, static_cast<size_t>(rank)));
  if (!shape.ok()) {
    state_->Note(shape.status());
    return nullptr;
  }
  absl::StatusOr<Tensor*> t = c_->AllocateOutput(i, *shape);
  if (t.ok()) return (*t)->raw();
  state_->Note(t.status());
  return nullptr;
}

void* Call::Output(int i, const std::vector<int64_t>& dims) {
  return Output(i, dims.data(), static_cast<int>(dims.size()));
}

void* Call::OutputLike(int i, int input) {
  absl::StatusOr<Tensor*> t = c_->AllocateOutput(i, c_->input(input).shape());
  if (t.ok()) return (*t)->raw();
  state_->Note(t.status());
  return nullptr;
}

DType Call::output_type(int i) const { return c_->output_type(i); }

void Call::Forward(int in, int out, const int64_t* dims, int rank) {
  c_->ForwardInput(in, out, TensorShape(absl::MakeConstSpan(dims, static_cast<size_t>(rank))));
}

void* Call::Scratch(int64_t bytes) {
  absl::StatusOr<void*> p = c_->Scratch(static_cast<size_t>(std::max<int64_t>(bytes, 1)));
  if (p.ok()) return *p;
  state_->Note(p.status());
  return nullptr;
}

bool Call::Variables(const std::vector<int>& inputs, Target* out) {
  for (int i : inputs) state_->locked.push_back(c_->variable(i));
  state_->locks = std::make_unique<VariableLocks>(absl::MakeSpan(state_->locked));
  for (size_t k = 0; k < inputs.size(); ++k) {
    Variable* v = c_->variable(inputs[k]);
    if (!v->initialized()) {
      return state_->Note(
          FailedPrecondition("Attempting to use uninitialized value ", v->name()));
    }
    Tensor* t = v->MutableTensor();
    out[k].data = t->raw();
    out[k].dtype = t->dtype();
    out[k].rank = t->rank();
    out[k].dims = t->shape().dims().data();
    out[k].elements = t->num_elements();
  }
  return true;
}

void Call::OutputVariable(int out, int in) { c_->SetOutputVariable(out, c_->variable(in)); }

GpuDevice* Call::device() const { return c_->gpu(); }
void* Call::stream() const { return c_->gpu_stream(); }
int Call::multiprocessors() const { return c_->gpu()->multiprocessors(); }

bool Call::Cuda(int error, const char* what) {
  return error == 0 || state_->Note(c_->gpu()->CheckCuda(error, what));
}
bool Call::Blas(int status, const char* what) {
  return status == 0 || state_->Note(c_->gpu()->CheckBlas(status, what));
}
void* Call::BlasHandle() {
  absl::StatusOr<void*> handle = c_->gpu()->LockBlas(stream());
  if (handle.ok()) {
    state_->blas = true;
    return *handle;
  }
  state_->Note(handle.status());
  return nullptr;
}
bool Call::Launched(const char* kernel) {
  return state_->Note(c_->gpu()->CheckLaunch(kernel));
}
bool Call::Copy(void* to, const void* from, int64_t bytes) {
  return state_->Note(
      c_->gpu()->CopyOnDevice(stream(), to, from, static_cast<size_t>(bytes)));
}
bool Call::Fill(void* to, int byte, int64_t bytes) {
  return state_->Note(c_->gpu()->Fill(stream(), to, byte, static_cast<size_t>(bytes)));
}

bool Call::Fail(Error error, const std::string& message) {
  return state_->Note(ToStatus(error, message));
}

KernelContext* HostSide::Context(const Call* c) { return c->c_; }
bool HostSide::Note(Call* c, absl::Status status) { return c->state_->Note(std::move(status)); }

// ---- Registration ----

class KernelAdapter : public ferry::Kernel {
 public:
  explicit KernelAdapter(std::unique_ptr<gpu::Kernel> kernel) : kernel_(std::move(kernel)) {}
  absl::Status Init(const KernelConstruction& c) override {
    Setup setup(c);
    if (kernel_->Init(&setup)) return absl::OkStatus();
    return ToStatus(setup.error_, setup.message_);
  }
  absl::Status Compute(KernelContext* c) const override {
    return Launch(c, [this](Call* call) { return kernel_->Run(call); });
  }
  static absl::Status Launch(KernelContext* c, absl::FunctionRef<bool(Call*)> launch) {
    FERRY_RETURN_IF_ERROR(c->gpu()->MakeCurrent());
    Call call(c);
    if (launch(&call)) return absl::OkStatus();
    if (!call.state_->status.ok()) return call.state_->status;
    return Internal("the kernel failed and didn't say why");
  }

 private:
  const std::unique_ptr<gpu::Kernel> kernel_;
};

absl::Status LaunchOnGpu(KernelContext* c, absl::FunctionRef<bool(Call*)> launch) {
  return KernelAdapter::Launch(c, launch);
}

ArrayFunctions& Array() {
  static ArrayFunctions functions;
  return functions;
}

bool Register(Registration r) {
  KernelBuilder b(r.op);
  b.Device(DeviceType::kGpu);
  for (auto& [attr, types] : r.types) b.Type(attr, types);
  for (const std::string& arg : r.host_memory) b.HostMemory(arg);
  for (int i : r.in_place) b.InPlace(i);
  if (!r.replayable) b.NotReplayable();
  b.Make([make = r.make] { return std::make_unique<KernelAdapter>(make()); });
  const KernelBuilder::Registrar registrar(b);
  return true;
}

// ---- Shapes ----

bool SameShape(const Input& a, const Input& b) {
  return a.rank == b.rank && std::equal(a.dims, a.dims + a.rank, b.dims);
}

std::string ShapeOf(const Input& in) {
  return absl::StrCat("[", absl::StrJoin(absl::MakeConstSpan(in.dims, in.rank), ","), "]");
}

bool MakeBroadcast(Call* c, const std::vector<Input>& operands, Broadcast* out) {
  int rank = 0;
  for (const Input& in : operands) rank = std::max(rank, in.rank);
  out->out.assign(static_cast<size_t>(rank), 1);
  for (const Input& in : operands) {
    for (int i = 0; i < in.rank; ++i) {
      int64_t& size = out->out[static_cast<size_t>(rank - in.rank + i)];
      if (in.dims[i] == 1) continue;
      if (size != 1 && size != in.dims[i]) {
        return c->Fail(Error::kInvalidArgument,
                       absl::StrCat("Incompatible shapes: ",
                                    absl::StrJoin(operands, " vs. ",
                                                  [](std::string* s, const Input& o) {
                                                    s->append(ShapeOf(o));
                                                  })));
      }
      size = in.dims[i];
    }
  }
  out->out_rank = rank;
  out->elements = 1;
  for (int64_t d : out->out) out->elements *= d;
  out->flat = true;
  // From the innermost dimension outwards, merging those that the same operands have.
  struct Group {
    int64_t size;
    unsigned pattern;
  };
  std::vector<Group> groups;
  for (int d = rank; d-- > 0;) {
    if (out->out[static_cast<size_t>(d)] == 1) continue;
    unsigned pattern = 0;
    for (size_t k = 0; k < operands.size(); ++k) {
      const int own = d - (rank - operands[k].rank);
      if (own >= 0 && operands[k].dims[own] != 1) {
        pattern |= 1u << k;
      } else {
        out->flat = false;
      }
    }
    if (groups.empty() || groups.back().pattern != pattern) groups.push_back({1, pattern});
    groups.back().size *= out->out[static_cast<size_t>(d)];
  }
  if (groups.size() > kMaxDims) {
    return c->Fail(Error::kUnimplemented,
                   absl::StrCat("broadcasting over more than ", kMaxDims,
                                " dimensions that alternate, on a GPU"));
  }
  out->rank = static_cast<int>(groups.size());
  int64_t volume[3] = {1, 1, 1};
  for (size_t g = 0; g < groups.size(); ++g) {
    const size_t d = groups.size() - 1 - g;
    out->dims[d] = groups[g].size;
    for (size_t k = 0; k < 3; ++k) {
      const bool has = k < operands.size() && (groups[g].pattern >> k & 1);
      out->strides[k][d] = has ? volume[k] : 0;
      if (has) volume[k] *= groups[g].size;
    }
  }
  return true;
}

bool MakeReduction(Call* c, const Input& in, const std::vector<int64_t>& axes, bool keep_dims,
                   Reduction* out) {
  std::vector<bool> reduced(static_cast<size_t>(in.rank));
  for (int64_t axis : axes) {
    const int64_t d = axis < 0 ? axis + in.rank : axis;
    if (d < 0 || d >= in.rank) {
      return c->Fail(Error::kInvalidArgument,
                     absl::StrCat("Invalid reduction dimension (", axis, " for input with ",
                                  in.rank, " dimension(s))"));
    }
    if (reduced[static_cast<size_t>(d)]) {
      return c->Fail(
          Error::kInvalidArgument,
          absl::StrCat("Invalid reduction arguments: Axes contains duplicate dimension: ", d));
    }
    reduced[static_cast<size_t>(d)] = true;
  }
  *out = Reduction();
  for (int d = 0; d < in.rank; ++d) {
    const bool kept = !reduced[static_cast<size_t>(d)];
    const int64_t size = in.dims[d];
    if (kept || keep_dims) out->out.push_back(kept ? size : 1);
    (kept ? out->out_elements : out->reduced_elements) *= size;
    if (size == 1) continue;
    if (out->rank > 0 && out->kept[out->rank - 1] == kept) {
      out->dims[out->rank - 1] *= size;
      continue;
    }
    if (out->rank == kMaxDims) {
      return c->Fail(Error::kUnimplemented,
                     absl::StrCat("reducing over more than ", kMaxDims,
                                  " dimensions that alternate, on a GPU"));
    }
    out->kept[out->rank] = kept;
    out->dims[out->rank++] = size;
  }
  return true;
}

}  // namespace gpu
}  // namespace ferry
