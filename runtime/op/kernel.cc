// Kernels' registry, and what their calls have in common: see kernel.h.
#include "runtime/op/kernel.h"

#include <algorithm>
#include <cstring>
#include <map>

#include "absl/strings/str_join.h"
#include "runtime/base/status.h"

namespace ferry {

namespace {

absl::StatusOr<absl::InlinedVector<int64_t, 8>> AsInts(const Tensor& t) {
  if (t.rank() > 1) {
    return InvalidArgument("a scalar or vector of integers was expected, found shape ",
                           t.shape().DebugString());
  }
  absl::InlinedVector<int64_t, 8> out(static_cast<size_t>(t.num_elements()));
  switch (t.dtype()) {
    case DType::kInt32:
      std::copy_n(t.data<int32_t>(), out.size(), out.begin());
      return out;
    case DType::kInt64:
      std::copy_n(t.data<int64_t>(), out.size(), out.begin());
      return out;
    case DType::kInt16:
      std::copy_n(t.data<int16_t>(), out.size(), out.begin());
      return out;
    case DType::kInt8:
      std::copy_n(t.data<int8_t>(), out.size(), out.begin());
      return out;
    default:
      return InvalidArgument("int32 or int64 was expected, found ", DTypeName(t.dtype()));
  }
}

}  // namespace

absl::StatusOr<int64_t> KernelContext::InputAsInt(int i) const {
  FERRY_ASSIGN_OR_RETURN(auto ints, AsInts(input(i)));
  if (ints.size() != 1) {
    return InvalidArgument("input ", i, " must be a scalar, found shape ",
                           input(i).shape().DebugString());
  }
  return ints[0];
}

absl::StatusOr<absl::InlinedVector<int64_t, 8>> KernelContext::InputAsInts(int i) const {
  absl::StatusOr<absl::InlinedVector<int64_t, 8>> ints = AsInts(input(i));
  if (!ints.ok()) return Annotate(ints.status(), absl::StrCat("input ", i));
  return ints;
}

absl::StatusOr<TensorShape> KernelContext::InputAsShape(int i) const {
  FERRY_ASSIGN_OR_RETURN(auto ints, InputAsInts(i));
  return TensorShape::Make(ints);
}

void KernelContext::Unbind(Slot* s) {
  if (s->reg) {
    // A register that moved to a new buffer no longer counts the slots of the old one.
    if (s->reg->buffer.get() == s->tensor.buffer().get()) --s->reg->bound;
    s->reg = nullptr;
  }
}

absl::StatusOr<Tensor*> KernelContext::AllocateOutputSlow(int i, const TensorShape& shape) {
  Slot* s = &outputs_[i];
  const DType dtype = output_types_[i];
  Register* r = registers_[i];
  if (!r || dtype == DType::kString) {
    absl::StatusOr<Tensor> t =
        Tensor::Allocate(dtype, shape, gpu_ ? gpu_->allocator() : run_->allocator);
    if (!t.ok()) return t.status();
    Unbind(s);
    s->tensor = *std::move(t);
    run_->borrowed = true;
    return &s->tensor;
  }
  const size_t size = ElementSize(dtype);
  if (i == 0) {
    for (int k = 0; k < inplace_count_; ++k) {
      Slot* in = inputs_[inplace_[k]];
      if (!in->reg || in->variable || in->tensor.shape() != shape ||
          ElementSize(in->tensor.dtype()) != size ||
          in->reg->buffer.get() != in->tensor.buffer().get() || !in->reg->Private()) {
        continue;
      }
      if (s->reg == in->reg && s->tensor.buffer().get() == in->tensor.buffer().get() &&
          s->tensor.shape() == shape) {
        return &s->tensor;
      }
      Unbind(s);
      s->tensor = Tensor::Over(dtype, shape, in->tensor.buffer());
      s->reg = in->reg;
      ++s->reg->bound;
      return &s->tensor;
    }
  }
  int64_t bytes;
  if (__builtin_mul_overflow(shape.num_elements(), static_cast<int64_t>(size), &bytes)) {
    return ResourceExhausted("a ", DTypeName(dtype), " tensor of shape ", shape.DebugString(),
                             " is larger than any memory");
  }
  Unbind(s);
  if (!r->buffer || r->buffer->capacity() < static_cast<size_t>(bytes) ||
      r->buffer->refs() != r->bound + 1 + (s->tensor.buffer().get() == r->buffer.get())) {
    // Too small, or kept by somebody outside the run (a fetched tensor): take new memory. Let go
    // of the old first, so that both aren't held at once where they needn't be.
    s->tensor = Tensor();
    r->buffer.reset();
    r->bound = 0;
    absl::StatusOr<BufferRef> fresh = r->allocator->Allocate(static_cast<size_t>(bytes));
    if (!fresh.ok()) {
      return Annotate(fresh.status(), absl::StrCat("allocating a ", DTypeName(dtype),
                                                   " tensor of shape ", shape.DebugString()));
    }
    r->buffer = *std::move(fresh);
  }
  s->tensor = Tensor::Over(dtype, shape, r->buffer);
  s->reg = r;
  ++r->bound;
  return &s->tensor;
}

void KernelContext::ForwardInput(int in, int out, const TensorShape& shape) {
  const Slot* from = inputs_[in];
  Slot* to = &outputs_[out];
  // A variable's contents under the same shape go on as the variable itself: no reference to its
  // memory stays behind in the run's state.
  if (from->variable && from->variable->tensor().shape() == shape) {
    to->variable = from->variable;
    return;
  }
  to->variable = nullptr;
  const Tensor& t = from->variable ? from->variable->tensor() : from->tensor;
  Register* reg = from->variable ? nullptr : from->reg;
  if (!reg) run_->borrowed = true;
  if (to->reg == reg && to->tensor.buffer().get() == t.buffer().get() &&
      to->tensor.dtype() == t.dtype()) {
    to->tensor.set_shape(shape);
    return;
  }
  Unbind(to);
  to->tensor = t.WithShape(shape);
  if (reg && reg->buffer.get() == t.buffer().get()) {
    to->reg = reg;
    ++reg->bound;
  }
}

void KernelContext::SetOutput(int i, const Tensor& t) {
  Slot* s = &outputs_[i];
  s->variable = nullptr;
  run_->borrowed = true;
  if (!s->reg && s->tensor.SharesBufferWith(t) && s->tensor.shape() == t.shape() &&
      s->tensor.dtype() == t.dtype()) {
    return;
  }
  Unbind(s);
  s->tensor = t;
}

absl::Status KernelContext::Copy(const Tensor& from, Tensor* to) {
  if (gpu_) {
    return gpu_->CopyOnDevice(gpu_stream(), to->raw(), from.raw(), from.bytes());
  }
  if (from.dtype() == DType::kString) {
    CopyElements(from, to);
    return absl::OkStatus();
  }
  ParallelFor(static_cast<int64_t>(from.bytes()), int64_t{1} << 20,
              [&](int64_t begin, int64_t end) {
                std::memcpy(static_cast<char*>(to->raw()) + begin,
                            static_cast<const char*>(from.raw()) + begin,
                            static_cast<size_t>(end - begin));
              });
  return absl::OkStatus();
}

absl::StatusOr<void*> KernelContext::Scratch(size_t bytes) {
  if (!scratch_ || scratch_->capacity() < bytes) {
    scratch_.reset();
    FERRY_ASSIGN_OR_RETURN(scratch_,
                           (gpu_ ? gpu_->allocator() : run_->allocator)->Allocate(bytes));
  }
  return scratch_->data();
}

namespace {

std::map<std::pair<std::string, DeviceType>, std::vector<KernelDef>>& Kernels() {
  static auto* const kernels =
      new std::map<std::pair<std::string, DeviceType>, std::vector<KernelDef>>;
  return *kernels;
}

}  // namespace

KernelBuilder::Registrar::Registrar(const KernelBuilder& b) {
  Kernels()[{b.def_.op, b.def_.device}].push_back(b.def_);
}

namespace {

// Whether the attribute, a type or a list of them, has none but those.
bool TypesAreAmong(const AttrMap& attrs, const std::string& attr, const std::vector<DType>& types) {
  const auto among = [&types](DType t) {
    return std::find(types.begin(), types.end(), t) != types.end();
  };
  absl::StatusOr<DType> one = GetAttr<DType>(attrs, attr);
  if (one.ok()) return among(*one);
  absl::StatusOr<std::vector<DType>> list = GetAttr<std::vector<DType>>(attrs, attr);
  return list.ok() && std::all_of(list->begin(), list->end(), among);
}

}  // namespace

absl::StatusOr<const KernelDef*> FindKernel(const std::string& op, DeviceType device,
                                            const AttrMap& attrs) {
  auto it = Kernels().find({op, device});
  if (it == Kernels().end()) {
    return Unimplemented("op ", op, " has no ", DeviceTypeName(device), " kernel");
  }
  std::vector<std::string> have;
  for (const KernelDef& def : it->second) {
    bool fits = true;
    for (const auto& [attr, types] : def.types) {
      if (!TypesAreAmong(attrs, attr, types)) fits = false;
    }
    if (fits) return &def;
    std::vector<std::string> words;
    for (const auto& [attr, types] : def.types) {
      words.push_back(absl::StrCat(
          attr, "=",
          absl::StrJoin(types, "|", [](std::string* out, DType t) { out->append(DTypeName(t)); })));
    }
    have.push_back(absl::StrJoin(words, " "));
  }
  std::vector<std::string> asked;
  for (const auto& [attr, types] : it->second.front().types) {
    absl::StatusOr<DType> t = GetAttr<DType>(attrs, attr);
    asked.push_back(absl::StrCat(attr, "=", t.ok() ? DTypeName(*t) : "?"));
  }
  return Unimplemented("op ", op, " has no ", DeviceTypeName(device), " kernel for ",
                       absl::StrJoin(asked, " "), "; there is one for ", absl::StrJoin(have, ", "));
}

std::vector<const KernelDef*> KernelsOf(const std::string& op, DeviceType device) {
  std::vector<const KernelDef*> all;
  auto it = Kernels().find({op, device});
  if (it == Kernels().end()) return all;
  for (const KernelDef& def : it->second) all.push_back(&def);
  return all;
}

}  // namespace ferry
