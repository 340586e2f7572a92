// The kernels that drive element-wise loops; see the header.
#include "kernels/elementwise.h"

#include <atomic>
#include <memory>
#include <string>

#include "kernels/broadcast.h"
#include "runtime/base/status.h"
#include "runtime/op/shape_inference.h"

namespace ferry {
namespace {

// Elements of a narrow type that are widened at a time: their floats stay in the first cache.
constexpr int64_t kBlock = 512;

const char* At(const void* p, int64_t i, size_t size) {
  return static_cast<const char*>(p) + i * static_cast<int64_t>(size);
}
char* At(void* p, int64_t i, size_t size) {
  return static_cast<char*>(p) + i * static_cast<int64_t>(size);
}

}  // namespace

void Widen(DType narrow, const void* from, float* to, int64_t n) {
  if (narrow == DType::kHalf) {
    MutableArray<float>(to, n) = ConstArray<half>(static_cast<const half*>(from), n).cast<float>();
  } else {
    MutableArray<float>(to, n) =
        ConstArray<bfloat16>(static_cast<const bfloat16*>(from), n).cast<float>();
  }
}

void Narrow(DType narrow, const float* from, void* to, int64_t n) {
  if (narrow == DType::kHalf) {
    MutableArray<half>(static_cast<half*>(to), n) = ConstArray<float>(from, n).cast<half>();
  } else {
    MutableArray<bfloat16>(static_cast<bfloat16*>(to), n) =
        ConstArray<float>(from, n).cast<bfloat16>();
  }
}

namespace {

class UnaryKernel : public Kernel {
 public:
  explicit UnaryKernel(const UnaryFn& fn)
      : fn_(fn),
        in_size_(ElementSize(fn.in)),
        out_size_(ElementSize(fn.out)),
        narrow_(IsNarrow(fn.in)) {}

  absl::Status Compute(KernelContext* c) const override {
    const Tensor& x = c->input(0);
    FERRY_ASSIGN_OR_RETURN(Tensor * y, c->AllocateOutput(0, x.shape()));
    const void* in = x.raw();
    void* out = y->raw();
    const int64_t n = x.num_elements();
    if (n <= fn_.grain && !narrow_) {
      fn_.loop(in, out, n);
      return absl::OkStatus();
    }
    c->ParallelFor(n, fn_.grain, [&](int64_t begin, int64_t end) {
      if (narrow_) {
        NarrowLoop(At(in, begin, in_size_), At(out, begin, out_size_), end - begin);
      } else {
        fn_.loop(At(in, begin, in_size_), At(out, begin, out_size_), end - begin);
      }
    });
    return absl::OkStatus();
  }

  ElementLoop element_loop() const override {
    if (narrow_ || fn_.out != fn_.in || in_size_ == 0) return {};
    return {fn_.in, 1, fn_.loop, nullptr, false, fn_.grain};
  }

 private:
  void NarrowLoop(const char* x, char* y, int64_t n) const {
    alignas(64) float wide[kBlock];
    for (int64_t i = 0; i < n; i += kBlock) {
      const int64_t m = std::min(kBlock, n - i);
      Widen(fn_.in, At(x, i, in_size_), wide, m);
      if (fn_.out == fn_.in) {
        fn_.loop(wide, wide, m);
        Narrow(fn_.in, wide, At(y, i, out_size_), m);
      } else {
        fn_.loop(wide, At(y, i, out_size_), m);
      }
    }
  }

  const UnaryFn fn_;
  const size_t in_size_, out_size_;
  const bool narrow_;
};

class BinaryKernel : public Kernel {
 public:
  explicit BinaryKernel(const BinaryFn& fn)
      : fn_(fn),
        in_size_(ElementSize(fn.in)),
        out_size_(ElementSize(fn.out)),
        narrow_(IsNarrow(fn.in)) {
    if (fn.in == DType::kString) in_size_ = sizeof(std::string);
    if (fn.out == DType::kString) out_size_ = sizeof(std::string);
  }

  absl::Status Init(const KernelConstruction& c) override {
    if (fn_.shapes == BinaryShapes::kMayMisfit) {
      FERRY_ASSIGN_OR_RETURN(must_fit_, c.Attr<bool>("incompatible_shape_error"));
    }
    return absl::OkStatus();
  }

  absl::Status Compute(KernelContext* c) const override {
    const TensorShape& xs = c->input(0).shape();
    const TensorShape& ys = c->input(1).shape();
    if (xs == ys) return Flat(c, xs, 1, 1);
    if (fn_.shapes == BinaryShapes::kSame) {
      return InvalidArgument("Inputs must have the same size and shape: ", xs.DebugString(),
                             " vs. ", ys.DebugString());
    }
    if (ys.num_elements() == 1 && ys.rank() <= xs.rank()) return Flat(c, xs, 1, 0);
    if (xs.num_elements() == 1 && xs.rank() <= ys.rank()) return Flat(c, ys, 0, 1);
    return Broadcasted(c, xs, ys);
  }

  ElementLoop element_loop() const override {
    if (narrow_ || fn_.out != fn_.in || fn_.in == DType::kString || fn_.error != nullptr ||
        fn_.shapes == BinaryShapes::kMayMisfit) {
      return {};
    }
    return {fn_.in, 2, nullptr, fn_.loop, fn_.shapes == BinaryShapes::kSame, fn_.grain};
  }

 private:
  // The output has one input's shape, and the other's or one element.
  absl::Status Flat(KernelContext* c, const TensorShape& shape, int x_step, int y_step) const {
    FERRY_ASSIGN_OR_RETURN(Tensor * z, c->AllocateOutput(0, shape));
    const void* x = c->input(0).raw();
    const void* y = c->input(1).raw();
    void* out = z->raw();
    const int64_t n = shape.num_elements();
    if (n <= fn_.grain) {
      return n == 0 || Loop(x, x_step, y, y_step, out, n) ? absl::OkStatus()
                                                          : InvalidArgument(fn_.error);
    }
    std::atomic<bool> ok{true};
    c->ParallelFor(n, fn_.grain, [&](int64_t begin, int64_t end) {
      if (!Loop(At(x, begin * x_step, in_size_), x_step, At(y, begin * y_step, in_size_), y_step,
                At(out, begin, out_size_), end - begin)) {
        ok.store(false, std::memory_order_relaxed);
      }
    });
    return ok ? absl::OkStatus() : InvalidArgument(fn_.error);
  }

  absl::Status Broadcasted(KernelContext* c, const TensorShape& xs, const TensorShape& ys) const {
    absl::StatusOr<TensorShape> shape = BroadcastShapes(xs, ys);
    if (!shape.ok()) {
      if (must_fit_) return shape.status();
      FERRY_ASSIGN_OR_RETURN(Tensor * z, c->AllocateOutput(0, TensorShape()));
      *z->data<bool>() = fn_.misfit;
      return absl::OkStatus();
    }
    FERRY_ASSIGN_OR_RETURN(Tensor * z, c->AllocateOutput(0, *shape));
    const void* x = c->input(0).raw();
    const void* y = c->input(1).raw();
    void* out = z->raw();
    const Broadcast walk(*shape, {&xs, &ys});
    const int x_step = walk.step(0), y_step = walk.step(1);
    std::atomic<bool> ok{true};
    c->ParallelFor(shape->num_elements(), fn_.grain, [&](int64_t begin, int64_t end) {
      walk.ForEachRun(begin, end, [&](int64_t at, const int64_t* from, int64_t n) {
        if (!Loop(At(x, from[0], in_size_), x_step, At(y, from[1], in_size_), y_step,
                  At(out, at, out_size_), n)) {
          ok.store(false, std::memory_order_relaxed);
        }
      });
    });
    return ok ? absl::OkStatus() : InvalidArgument(fn_.error);
  }

  bool Loop(const void* x, int x_step, const void* y, int y_step, void* z, int64_t n) const {
    if (!narrow_) return fn_.loop(x, x_step, y, y_step, z, n);
    alignas(64) float wide_x[kBlock];
    alignas(64) float wide_y[kBlock];
    if (x_step == 0) Widen(fn_.in, x, wide_x, 1);
    if (y_step == 0) Widen(fn_.in, y, wide_y, 1);
    alignas(64) float wide_z[kBlock];
    for (int64_t i = 0; i < n; i += kBlock) {
      const int64_t m = std::min(kBlock, n - i);
      if (x_step) Widen(fn_.in, At(x, i, in_size_), wide_x, m);
      if (y_step) Widen(fn_.in, At(y, i, in_size_), wide_y, m);
      if (fn_.out != fn_.in) {
        if (!fn_.loop(wide_x, x_step, wide_y, y_step, At(z, i, out_size_), m)) return false;
        continue;
      }
      if (!fn_.loop(wide_x, x_step, wide_y, y_step, wide_z, m)) return false;
      Narrow(fn_.in, wide_z, At(z, i, out_size_), m);
    }
    return true;
  }

  const BinaryFn fn_;
  size_t in_size_, out_size_;
  const bool narrow_;
  bool must_fit_ = true;
};

}  // namespace

void RegisterUnaryFn(const std::string& op, const UnaryFn& fn, const std::string& attr) {
  KernelBuilder b(op);
  b.Device(DeviceType::kCpu).InPlace(0);
  if (!attr.empty()) b.Type(attr, {fn.in});
  b.Make([fn] { return std::make_unique<UnaryKernel>(fn); });
  KernelBuilder::Registrar registrar(b);
  (void)registrar;
}

void RegisterBinaryFn(const std::string& op, const BinaryFn& fn, const std::string& attr) {
  KernelBuilder b(op);
  b.Device(DeviceType::kCpu).InPlace(0).InPlace(1);
  if (!attr.empty()) b.Type(attr, {fn.in});
  b.Make([fn] { return std::make_unique<BinaryKernel>(fn); });
  KernelBuilder::Registrar registrar(b);
  (void)registrar;
}

}  // namespace ferry
