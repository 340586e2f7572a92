// The ops by which a graph saves and restores its own variables: SaveV2, RestoreV2,
// MergeV2Checkpoints, ShardedFilename, ShardedFilespec.
#include <memory>
#include <deque>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "runtime/base/status.h"
#include "runtime/op/kernel.h"
#include "runtime/op/op_def.h"
#include "saver/bundle_reader.h"
#include "saver/bundle_writer.h"
#include "saver/snapshot.h"

namespace ferry {
namespace {

absl::StatusOr<std::string> ScalarString(const KernelContext& c, int i, const char* what) {
  const Tensor& t = c.input(i);
  if (t.num_elements() != 1) {
    return InvalidArgument("Input ", i, " (", what,
                           ") must be a string scalar; got a tensor of shape ",
                           t.shape().DebugString());
  }
  return t.scalar<std::string>();
}

// tensor_names and shape_and_slices: vectors with one string a tensor.
absl::Status CheckLists(const KernelContext& c, int64_t tensors) {
  for (const auto& [i, what] :
       {std::make_pair(1, "tensor_names"), std::make_pair(2, "shape_and_slices")}) {
    const TensorShape& shape = c.input(i).shape();
    if (shape.rank() != 1 || shape.dim(0) != tensors) {
      return InvalidArgument("Input ", i, " (", what, ") must be a vector of ", tensors,
                             " strings, one a tensor; got shape ", shape.DebugString());
    }
  }
  return absl::OkStatus();
}

absl::Status CheckListShapes(InferenceContext* c, int64_t tensors) {
  FERRY_RETURN_IF_ERROR(c->WithRank(c->input(0), 0).status());
  for (const int i : {1, 2}) {
    FERRY_ASSIGN_OR_RETURN(const PartialShape list, c->WithRank(c->input(i), 1));
    if (list.dim(0) >= 0 && list.dim(0) != tensors) {
      return InvalidArgument("input ", i, " has ", list.dim(0), " strings for ", tensors,
                             " tensors");
    }
  }
  return absl::OkStatus();
}

// ---- SaveV2 ----

// Writes a checkpoint of its own, durably, with the commit protocol of BundleWriter. Variables
// are pinned when the step begins: each is saved as it was then, whatever other Runs do meanwhile.
class SaveV2Kernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    constexpr int kFirst = 3;
    const int tensors = c->num_inputs() - kFirst;
    FERRY_ASSIGN_OR_RETURN(const std::string prefix, ScalarString(*c, 0, "prefix"));
    FERRY_RETURN_IF_ERROR(CheckLists(*c, tensors));
    const std::string* names = c->input(1).data<std::string>();
    const std::string* slices = c->input(2).data<std::string>();

    std::vector<Variable*> variables;
    for (int i = 0; i < tensors; ++i) {
      if (Variable* v = c->variable(kFirst + i)) variables.push_back(v);
    }
    FERRY_ASSIGN_OR_RETURN(const std::unique_ptr<Snapshot> pinned,
                           Snapshot::TakeWithinRun(variables));
    FERRY_ASSIGN_OR_RETURN(const std::unique_ptr<BundleWriter> writer,
                           BundleWriter::Open(c->run()->fs, prefix));
    std::deque<SnapshotSource> sources;  // Until the data is finished.
    for (int i = 0, pin = 0; i < tensors; ++i) {
      const bool is_pinned = c->variable(kFirst + i) != nullptr;
      const absl::Status status =
          Add(writer.get(), names[i], slices[i], is_pinned ? nullptr : &c->input(kFirst + i),
              is_pinned ? pinned.get() : nullptr, is_pinned ? pin++ : 0, &sources);
      if (!status.ok()) return status;
    }
    FERRY_RETURN_IF_ERROR(writer->FinishData());
    return writer->Commit();
  }

  // Adds `tensor`, or else variable `pin` of `pinned`.
  static absl::Status Add(BundleWriter* writer, const std::string& name, const std::string& slice,
                          const Tensor* tensor, Snapshot* pinned, int pin,
                          std::deque<SnapshotSource>* sources) {
    FERRY_ASSIGN_OR_RETURN(const ShapeAndSlice parsed, ParseShapeAndSlice(slice));
    const TensorShape& shape = tensor ? tensor->shape() : pinned->shape(pin);
    if (!parsed.whole && parsed.shape != shape) {
      return InvalidArgument(
          "Slice in shape_and_slice specification does not match the shape of the tensor to save: ",
          slice, ", tensor '", name, "' ", shape.DebugString());
    }
    const TensorShape& full = parsed.whole ? shape : parsed.full_shape;
    if (pinned && pinned->variable(pin).dtype() == DType::kString) tensor = &pinned->strings(pin);
    if (tensor) return writer->AddSlice(name, full, parsed.slice, *tensor);
    return writer->AddSlice(name, pinned->variable(pin).dtype(), full, parsed.slice,
                            &sources->emplace_back(pinned, pin));
  }
};

FERRY_OP("SaveV2")
    .Input("prefix: string")
    .Input("tensor_names: string")
    .Input("shape_and_slices: string")
    .Input("tensors: dtypes")
    .Attr("dtypes: list(type) >= 1")
    .Stateful()
    .NotDifferentiable()
    .Shape([](InferenceContext* c) { return CheckListShapes(c, c->num_inputs() - 3); });
FERRY_KERNEL("SaveV2").Device(DeviceType::kCpu).AnyMemory("tensors").Make<SaveV2Kernel>();
FERRY_KERNEL("SaveV2")
    .Device(DeviceType::kGpu)
    .HostMemory("prefix")
    .HostMemory("tensor_names")
    .HostMemory("shape_and_slices")
    .AnyMemory("tensors")
    .NotReplayable()
    .Make<SaveV2Kernel>();

// ---- RestoreV2 ----

class RestoreV2Kernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    const int tensors = c->num_outputs();
    FERRY_ASSIGN_OR_RETURN(const std::string prefix, ScalarString(*c, 0, "prefix"));
    FERRY_RETURN_IF_ERROR(CheckLists(*c, tensors));
    const std::string* names = c->input(1).data<std::string>();
    const std::string* slices = c->input(2).data<std::string>();
    FERRY_ASSIGN_OR_RETURN(const std::unique_ptr<BundleReader> reader,
                           BundleReader::Open(c->run()->fs, prefix));

    // All is checked before anything is read.
    std::vector<const BundleReader::Entry*> entries;
    std::vector<ShapeAndSlice> parsed;
    for (int i = 0; i < tensors; ++i) {
      FERRY_ASSIGN_OR_RETURN(const BundleReader::Entry* entry, reader->Lookup(names[i]));
      FERRY_ASSIGN_OR_RETURN(ShapeAndSlice slice, ParseShapeAndSlice(slices[i]));
      if (entry->dtype != c->output_type(i)) {
        return InvalidArgument("tensor_name = ", names[i], "; expected dtype ",
                               DTypeWord(c->output_type(i)), " does not equal original dtype ",
                               DTypeWord(entry->dtype));
      }
      if (!slice.whole && slice.full_shape != entry->shape) {
        return InvalidArgument(
            "tensor_name = ", names[i], "; shape in shape_and_slice spec ",
            slice.full_shape.DebugString(),
            " does not match the shape stored in checkpoint: ", entry->shape.DebugString());
      }
      FERRY_RETURN_IF_ERROR(reader->Check(*entry));
      entries.push_back(entry);
      parsed.push_back(std::move(slice));
    }

    std::vector<BundleReader::Request> requests;
    for (int i = 0; i < tensors; ++i) {
      const BundleReader::Entry& entry = *entries[static_cast<size_t>(i)];
      const ShapeAndSlice& slice = parsed[static_cast<size_t>(i)];
      const bool whole = slice.whole || slice.slice.is_full();
      if (whole && BundleReader::CanReadInto(entry)) {
        FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(i, entry.shape));
        requests.push_back({&entry, out->raw()});
      } else {
        FERRY_ASSIGN_OR_RETURN(const Tensor t,
                               whole ? reader->Read(names[i], c->run()->pool)
                                     : reader->ReadSlice(names[i], slice.slice, c->run()->pool));
        c->SetOutput(i, t);
      }
    }
    return reader->ReadInto(absl::MakeSpan(requests), c->run()->pool);
  }
};

FERRY_OP("RestoreV2")
    .Input("prefix: string")
    .Input("tensor_names: string")
    .Input("shape_and_slices: string")
    .Output("tensors: dtypes")
    .Attr("dtypes: list(type) >= 1")
    .Stateful()
    .NotDifferentiable()
    .Shape([](InferenceContext* c) -> absl::Status {
      FERRY_RETURN_IF_ERROR(CheckListShapes(c, c->num_outputs()));
      // Of a part the shape is known.
      const Tensor* slices = c->value(2);
      for (int i = 0; slices && i < c->num_outputs(); ++i) {
        FERRY_ASSIGN_OR_RETURN(const ShapeAndSlice parsed,
                               ParseShapeAndSlice(slices->data<std::string>()[i]));
        if (!parsed.whole) c->set_output(i, parsed.shape);
      }
      return absl::OkStatus();
    });
FERRY_KERNEL("RestoreV2").Device(DeviceType::kCpu).Make<RestoreV2Kernel>();

// ---- Sharded saves ----

class MergeV2CheckpointsKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    FERRY_ASSIGN_OR_RETURN(delete_old_dirs_, c.Attr<bool>("delete_old_dirs"));
    FERRY_ASSIGN_OR_RETURN(allow_missing_files_, c.Attr<bool>("allow_missing_files"));
    return absl::OkStatus();
  }
  absl::Status Compute(KernelContext* c) const override {
    FERRY_ASSIGN_OR_RETURN(const std::string to, ScalarString(*c, 1, "destination_prefix"));
    std::vector<std::string> parts;
    for (const std::string& part : c->input(0).span<std::string>()) {
      if (!allow_missing_files_ || c->run()->fs->Exists(IndexFileName(part))) parts.push_back(part);
    }
    return MergeBundles(c->run()->fs, parts, to, delete_old_dirs_);
  }
  bool delete_old_dirs_ = true, allow_missing_files_ = false;
};

FERRY_OP("MergeV2Checkpoints")
    .Input("checkpoint_prefixes: string")
    .Input("destination_prefix: string")
    .Attr("delete_old_dirs: bool = true")
    .Attr("allow_missing_files: bool = false")
    .Stateful()
    .NotDifferentiable()
    .Shape([](InferenceContext* c) -> absl::Status {
      FERRY_RETURN_IF_ERROR(c->WithRank(c->input(0), 1).status());
      return c->WithRank(c->input(1), 0).status();
    });
FERRY_KERNEL("MergeV2Checkpoints").Device(DeviceType::kCpu).Make<MergeV2CheckpointsKernel>();

class ShardedFilenameKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    FERRY_ASSIGN_OR_RETURN(const std::string base, ScalarString(*c, 0, "basename"));
    std::string name;
    if (c->num_inputs() == 3) {
      FERRY_ASSIGN_OR_RETURN(const int64_t shard, c->InputAsInt(1));
      FERRY_ASSIGN_OR_RETURN(const int64_t shards, c->InputAsInt(2));
      name = absl::StrFormat("%s-%05d-of-%05d", base, shard, shards);
    } else {
      FERRY_ASSIGN_OR_RETURN(const int64_t shards, c->InputAsInt(1));
      name = absl::StrFormat("%s-\?\?\?\?\?-of-%05d", base, shards);
    }
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, TensorShape()));
    out->data<std::string>()[0] = std::move(name);
    return absl::OkStatus();
  }
};

absl::Status ScalarsToScalar(InferenceContext* c) {
  for (int i = 0; i < c->num_inputs(); ++i) {
    FERRY_RETURN_IF_ERROR(c->WithRank(c->input(i), 0).status());
  }
  return ScalarShape(c);
}

FERRY_OP("ShardedFilename")
    .Input("basename: string")
    .Input("shard: int32")
    .Input("num_shards: int32")
    .Output("filename: string")
    .NotDifferentiable()
    .Shape(ScalarsToScalar);
FERRY_KERNEL("ShardedFilename").Device(DeviceType::kCpu).Make<ShardedFilenameKernel>();

FERRY_OP("ShardedFilespec")
    .Input("basename: string")
    .Input("num_shards: int32")
    .Output("filename: string")
    .NotDifferentiable()
    .Shape(ScalarsToScalar);
FERRY_KERNEL("ShardedFilespec").Device(DeviceType::kCpu).Make<ShardedFilenameKernel>();

}  // namespace
}  // namespace ferry
