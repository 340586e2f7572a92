// BundleReader: see bundle_reader.h.
#include "saver/bundle_reader.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <set>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_join.h"
#include "proto/saved_tensor_slice.pb.h"
#include "proto/trackable_object_graph.pb.h"
#include "runtime/base/crc32c.h"
#include "runtime/base/status.h"
#include "runtime/op/attr.h"
#include "saver/bundle_writer.h"
#include "saver/gpu_upload.h"
#include "saver/table_reader.h"

namespace ferry {
namespace {

// Bytes are checked while they are still in the cache: so many are read at a time.
constexpr size_t kChunk = size_t{256} << 10;
// What one thread reads at a time of a large tensor.
constexpr uint64_t kPieceBytes = uint64_t{4} << 20;
// The version of the format that this is, and the newest minimum that it satisfies.
constexpr int kBundleVersion = 1;

// Names in messages, whatever bytes they have.
std::string Printable(absl::string_view name) {
  constexpr size_t kMost = 200;
  return name.size() <= kMost ? absl::Utf8SafeCHexEscape(name)
                              : absl::Utf8SafeCHexEscape(name.substr(0, kMost)) + "...";
}

// Edits (insertions, deletions, replacements) between the two, or `limit` if there are more.
int EditDistance(absl::string_view a, absl::string_view b, int limit) {
  if (a.size() > b.size()) std::swap(a, b);
  if (b.size() - a.size() >= static_cast<size_t>(limit)) return limit;
  std::vector<int> row(a.size() + 1);
  for (size_t i = 0; i <= a.size(); ++i) row[i] = static_cast<int>(i);
  for (size_t j = 1; j <= b.size(); ++j) {
    int diagonal = row[0];
    row[0] = static_cast<int>(j);
    for (size_t i = 1; i <= a.size(); ++i) {
      const int replaced = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[i];
      row[i] = std::min({row[i] + 1, row[i - 1] + 1, replaced});
    }
  }
  return std::min(row[a.size()], limit);
}

absl::Status ParseHeader(absl::string_view key, absl::string_view value, const std::string& file,
                         int* num_shards) {
  proto::BundleHeaderProto header;
  if (!key.empty() || !header.ParseFromArray(value.data(), static_cast<int>(value.size()))) {
    return DataLoss("'", file, "': its first entry isn't a checkpoint's header");
  }
  if (header.endianness() != proto::BundleHeaderProto::LITTLE) {
    return Unimplemented("'", file, "': its data is of the other endianness (big)");
  }
  const proto::VersionDef& version = header.version();
  if (version.min_consumer() > kBundleVersion) {
    return Unimplemented("'", file, "': Checkpoint min consumer version ", version.min_consumer(),
                         " above current version ", kBundleVersion);
  }
  if (std::count(version.bad_consumers().begin(), version.bad_consumers().end(), kBundleVersion)) {
    return Unimplemented("'", file, "': Checkpoint disallows consumer version ", kBundleVersion);
  }
  if (header.num_shards() < 1) {
    return DataLoss("'", file, "': its header says that there are ", header.num_shards(),
                    " data files");
  }
  *num_shards = header.num_shards();
  return absl::OkStatus();
}

absl::StatusOr<TensorShape> ShapeOf(const proto::TensorShapeProto& shape) {
  if (shape.unknown_rank()) return InvalidArgument("its rank isn't known");
  std::vector<int64_t> dims;
  for (const auto& dim : shape.dim()) dims.push_back(dim.size());
  return TensorShape::Make(dims);
}

// Elements that `slice` (within `full`) has; REQUIRES that SliceShape accepted it.
void Bounds(const TensorSlice& slice, const TensorShape& full, std::vector<int64_t>* start,
            std::vector<int64_t>* length) {
  start->clear();
  length->clear();
  for (int d = 0; d < full.rank(); ++d) {
    const TensorSlice::Extent& e = slice.extents[static_cast<size_t>(d)];
    const bool whole = e.length == TensorSlice::kFull;
    start->push_back(whole ? 0 : e.start);
    length->push_back(whole ? full.dim(d) : e.length);
  }
}

// Calls fn(from, to, count) for each run of elements that the boxes share in memory order.
template <typename Fn>
void ForEachRun(const TensorShape& from, absl::Span<const int64_t> from_start,
                const TensorShape& to, absl::Span<const int64_t> to_start,
                absl::Span<const int64_t> size, Fn fn) {
  for (const int64_t s : size) {
    if (s == 0) return;
  }
  const int rank = from.rank();
  if (rank == 0) {
    fn(0, 0, 1);
    return;
  }
  std::vector<int64_t> at(static_cast<size_t>(rank), 0);
  const size_t last = static_cast<size_t>(rank) - 1;
  while (true) {
    int64_t from_index = 0, to_index = 0;
    for (size_t d = 0; d <= last; ++d) {
      const int64_t i = d == last ? 0 : at[d];
      from_index = from_index * from.dim(static_cast<int>(d)) + from_start[d] + i;
      to_index = to_index * to.dim(static_cast<int>(d)) + to_start[d] + i;
    }
    fn(from_index, to_index, size[last]);
    size_t d = last;
    while (d > 0 && ++at[d - 1] == size[d - 1]) at[--d] = 0;
    if (d == 0) return;
  }
}

}  // namespace

int64_t CopyBox(const Tensor& from, absl::Span<const int64_t> from_start, Tensor* to,
                absl::Span<const int64_t> to_start, absl::Span<const int64_t> size) {
  int64_t copied = 0;
  const size_t width = ElementSize(from.dtype());
  ForEachRun(from.shape(), from_start, to->shape(), to_start, size,
             [&](int64_t f, int64_t t, int64_t n) {
               copied += n;
               if (from.dtype() == DType::kString) {
                 std::copy_n(from.data<std::string>() + f, n, to->data<std::string>() + t);
               } else {
                 std::memcpy(static_cast<char*>(to->raw()) + static_cast<size_t>(t) * width,
                             static_cast<const char*>(from.raw()) + static_cast<size_t>(f) * width,
                             static_cast<size_t>(n) * width);
               }
             });
  return copied;
}

absl::Status ReadIndex(
    FileSystem* fs, const std::string& prefix, int* num_shards,
    absl::FunctionRef<absl::Status(absl::string_view, const proto::BundleEntryProto&)> fn) {
  const std::string path = IndexFileName(prefix);
  FERRY_ASSIGN_OR_RETURN(const std::string contents, ReadFile(fs, path));
  bool any = false;
  proto::BundleEntryProto entry;
  FERRY_RETURN_IF_ERROR(
      ReadTable(contents, path, [&](absl::string_view key, absl::string_view value) {
        if (!any) {
          any = true;
          return ParseHeader(key, value, path, num_shards);
        }
        if (!entry.ParseFromArray(value.data(), static_cast<int>(value.size()))) {
          return DataLoss("'", path, "': the entry of '", Printable(key), "' can't be read");
        }
        return fn(key, entry);
      }));
  if (!any) return DataLoss("'", path, "': it has no header");
  return absl::OkStatus();
}

// ---- Opening ----

absl::StatusOr<std::unique_ptr<BundleReader>> BundleReader::Open(FileSystem* fs,
                                                                 const std::string& prefix) {
  std::unique_ptr<BundleReader> reader(new BundleReader(fs, prefix));
  const absl::StatusOr<FileInfo> index = fs->Stat(IndexFileName(prefix));
  if (index.ok()) {
    FERRY_RETURN_IF_ERROR(reader->OpenV2(IndexFileName(prefix)));
    return reader;
  }
  if (!absl::IsNotFound(index.status())) return index.status();
  const absl::StatusOr<FileInfo> file = fs->Stat(prefix);
  std::string of;
  int shard, count;
  if (absl::EndsWith(prefix, ".index") || ParseDataFileName(prefix, &of, &shard, &count)) {
    if (file.ok()) {
      return InvalidArgument(
          "The passed save_path is not a valid checkpoint: ", prefix,
          " (it is one of a checkpoint's files; pass the prefix '",
          absl::EndsWith(prefix, ".index") ? prefix.substr(0, prefix.size() - 6) : of, "')");
    }
  }
  if (!file.ok() || file->is_directory) {
    return InvalidArgument("The passed save_path is not a valid checkpoint: ", prefix);
  }
  FERRY_RETURN_IF_ERROR(reader->OpenV1());
  return reader;
}

absl::Status BundleReader::TakeEntry(absl::string_view key, const proto::BundleEntryProto& proto,
                                     Entry* entry) const {
  entry->name = std::string(key);
  entry->dtype = static_cast<DType>(proto.dtype());
  entry->shard = proto.shard_id();
  entry->offset = static_cast<uint64_t>(proto.offset());
  entry->size = static_cast<uint64_t>(proto.size());
  entry->crc = UnmaskCrc32c(proto.crc32c());
  absl::StatusOr<TensorShape> shape = ShapeOf(proto.shape());
  if (!shape.ok()) return shape.status();
  entry->shape = *std::move(shape);
  const uint64_t elements = static_cast<uint64_t>(entry->shape.num_elements());
  const size_t width = ElementSize(entry->dtype);
  if (IsRef(entry->dtype) || (width == 0 && entry->dtype != DType::kString)) {
    return Unimplemented("a tensor of dtype ", static_cast<int>(proto.dtype()),
                         " can't be read from a file");
  }
  if (proto.slices_size() > 0) return absl::OkStatus();
  if (proto.offset() < 0 || proto.size() < 0 || proto.offset() > INT64_MAX - proto.size()) {
    return DataLoss("its place (", proto.size(), " bytes at ", proto.offset(), ") is impossible");
  }
  if (proto.shard_id() < 0 || proto.shard_id() >= num_shards_) {
    return DataLoss("it lies in data file ", proto.shard_id(), " of ", num_shards_);
  }
  if (entry->dtype == DType::kString) {
    // Each element has a length of at least one byte; behind the lengths is a crc.
    if (entry->size < 4 || elements > entry->size - 4) {
      return DataLoss("its ", elements, " strings can't lie in ", entry->size, " bytes");
    }
  } else if (elements > entry->size / width || elements * width != entry->size) {
    return DataLoss("its ", elements, " elements of ", width, " bytes don't make up ", entry->size,
                    " bytes");
  }
  return absl::OkStatus();
}

absl::Status BundleReader::OpenV2(const std::string& index_path) {
  // Parts are found by their keys; each belongs to one tensor.
  std::map<std::string, std::vector<TensorSlice>> sliced;
  FERRY_RETURN_IF_ERROR(ReadIndex(
      fs_, prefix_, &num_shards_,
      [&](absl::string_view key, const proto::BundleEntryProto& proto) -> absl::Status {
        entries_.emplace_back();
        Entry* entry = &entries_.back();
        absl::Status status = TakeEntry(key, proto, entry);
        for (const proto::TensorSliceProto& slice : proto.slices()) {
          absl::StatusOr<TensorSlice> parsed = FromProto(slice);
          KeepFirst(&status, parsed.status());
          if (parsed.ok()) entry->slices.push_back(*std::move(parsed));
        }
        if (!status.ok()) {
          entry->problem = absl::StrCat("'", index_path, "': the entry of tensor '", Printable(key),
                                        "' makes no sense: ", status.message());
          entry->slices.clear();
        }
        return absl::OkStatus();
      }));

  absl::flat_hash_map<absl::string_view, Entry*> by_key;
  bool any_slices = false;
  for (Entry& entry : entries_) any_slices |= !entry.slices.empty();
  if (any_slices) {
    for (Entry& entry : entries_) by_key[entry.name] = &entry;
    std::set<const Entry*> used;
    for (Entry& entry : entries_) {
      int64_t covered = 0;
      std::string problem;
      for (const TensorSlice& slice : entry.slices) {
        const absl::StatusOr<TensorShape> shape = SliceShape(slice, entry.shape);
        const std::string key = SliceKey(entry.name, slice);
        const auto it = by_key.find(key);
        if (!shape.ok()) {
          problem = std::string(shape.status().message());
        } else if (it == by_key.end() || !it->second->slices.empty() ||
                   !used.insert(it->second).second) {
          problem = absl::StrCat("the part ", slice.DebugString(), " isn't there");
        } else if (it->second->dtype != entry.dtype || it->second->shape != *shape) {
          problem =
              absl::StrCat("the part ", slice.DebugString(), " is ", DTypeName(it->second->dtype),
                           " ", it->second->shape.DebugString());
        } else if (!it->second->problem.empty()) {
          problem = it->second->problem;
        }
        if (!problem.empty()) break;
        entry.parts.push_back(*it->second);
        entry.parts.back().name = entry.name;
        covered += shape->num_elements();  // Each part's bytes are its own: no overflow.
      }
      if (problem.empty() && !entry.slices.empty() && covered != entry.shape.num_elements()) {
        problem = absl::StrCat("its parts have ", covered, " elements");
      }
      if (!problem.empty()) {
        entry.problem =
            absl::StrCat("'", index_path, "': the entry of tensor '", Printable(entry.name),
                         "' of shape ", entry.shape.DebugString(), " makes no sense: ", problem);
        entry.parts.clear();
      }
    }
    // Parts aren't tensors of their own.
    std::vector<Entry> whole;
    for (Entry& entry : entries_) {
      if (used.count(&entry) == 0) whole.push_back(std::move(entry));
    }
    entries_.swap(whole);
  }
  std::vector<Entry*> with_bytes;
  for (Entry& entry : entries_) {
    if (entry.slices.empty()) with_bytes.push_back(&entry);
    for (Entry& part : entry.parts) with_bytes.push_back(&part);
  }
  FindOverlaps(std::move(with_bytes));
  return absl::OkStatus();
}

// Bytes that two tensors share would let a small file ask for any amount of memory.
void BundleReader::FindOverlaps(std::vector<Entry*> entries) const {
  entries.erase(std::remove_if(entries.begin(), entries.end(),
                               [](const Entry* e) { return e->size == 0 || !e->problem.empty(); }),
                entries.end());
  std::sort(entries.begin(), entries.end(), [](const Entry* a, const Entry* b) {
    return std::tie(a->shard, a->offset) < std::tie(b->shard, b->offset);
  });
  const Entry* last = nullptr;
  for (Entry* entry : entries) {
    if (last && last->shard == entry->shard && entry->offset < last->offset + last->size) {
      entry->problem =
          absl::StrCat("'", IndexFileName(prefix_), "': the bytes of tensor '",
                       Printable(entry->name), "' are also those of '", Printable(last->name), "'");
    } else {
      last = entry;
    }
  }
}

absl::Status BundleReader::OpenV1() {
  is_v1_ = true;
  FERRY_ASSIGN_OR_RETURN(v1_contents_, ReadFile(fs_, prefix_));
  const auto bad = [this](absl::string_view what) { return DataLoss("'", prefix_, "': ", what); };
  proto::SavedTensorSlices slices;
  absl::flat_hash_map<std::string, absl::string_view> data;
  bool any = false;
  FERRY_RETURN_IF_ERROR(ReadTable(
      v1_contents_, prefix_, [&](absl::string_view key, absl::string_view value) -> absl::Status {
        if (any) {
          data[std::string(key)] = value;
        } else if (!key.empty() ||
                   !slices.ParseFromArray(value.data(), static_cast<int>(value.size()))) {
          return bad("its first entry isn't a V1 checkpoint's meta data");
        }
        any = true;
        return absl::OkStatus();
      }));
  if (slices.meta().versions().min_consumer() > kBundleVersion) {
    return Unimplemented("'", prefix_, "' needs a reader of version ",
                         slices.meta().versions().min_consumer());
  }
  for (const proto::SavedSliceMeta& meta : slices.meta().tensor()) {
    Entry entry;
    entry.name = meta.name();
    entry.dtype = static_cast<DType>(meta.type());
    const absl::StatusOr<TensorShape> shape = ShapeOf(meta.shape());
    if (!shape.ok()) return bad(shape.status().message());
    entry.shape = *shape;
    int64_t covered = 0;
    for (const proto::TensorSliceProto& slice_proto : meta.slice()) {
      FERRY_ASSIGN_OR_RETURN(const TensorSlice slice, FromProto(slice_proto));
      FERRY_ASSIGN_OR_RETURN(const TensorShape part_shape, SliceShape(slice, entry.shape));
      const auto it = data.find(SliceKey(meta.name(), slice));
      if (it == data.end()) {
        return bad(absl::StrCat("the part ", slice.DebugString(), " of tensor '",
                                Printable(meta.name()), "' isn't there"));
      }
      // Each element takes at least a byte, which bounds the memory that the file can ask for.
      if (static_cast<uint64_t>(part_shape.num_elements()) > it->second.size()) {
        return bad(absl::StrCat("the part ", slice.DebugString(), " of tensor '",
                                Printable(meta.name()), "' has ", it->second.size(), " bytes"));
      }
      Entry part;
      part.name = entry.name;
      part.dtype = entry.dtype;
      part.shape = part_shape;
      part.v1 = it->second;
      part.size = it->second.size();
      data.erase(it);  // A second use would multiply the memory that a file can ask for.
      covered += part_shape.num_elements();
      entry.size += part.size;
      entry.slices.push_back(slice);
      entry.parts.push_back(std::move(part));
    }
    if (covered != entry.shape.num_elements()) {
      return bad(absl::StrCat("the parts of tensor '", Printable(meta.name()), "' of shape ",
                              entry.shape.DebugString(), " have ", covered, " elements"));
    }
    if (entry.parts.size() == 1 && entry.slices[0].is_full()) {
      Entry only = std::move(entry.parts[0]);
      entry = std::move(only);
    }
    entries_.push_back(std::move(entry));
  }
  std::sort(entries_.begin(), entries_.end(),
            [](const Entry& a, const Entry& b) { return a.name < b.name; });
  return absl::OkStatus();
}

// ---- Looking up ----

const BundleReader::Entry* BundleReader::Find(absl::string_view name) const {
  const auto it = std::lower_bound(
      entries_.begin(), entries_.end(), name,
      [](const Entry& e, absl::string_view n) { return absl::string_view(e.name) < n; });
  return it != entries_.end() && it->name == name ? &*it : nullptr;
}

absl::StatusOr<const BundleReader::Entry*> BundleReader::Lookup(absl::string_view name) const {
  if (const Entry* entry = Find(name)) return entry;
  FERRY_ASSIGN_OR_RETURN(const std::string key, KeyOfObject(name));
  const Entry* of_object = key.empty() ? nullptr : Find(key);
  if (of_object) return of_object;
  // The nearest names: by edits, and those that hold the name or are held by it.
  constexpr size_t kMostNames = 3, kMostCompared = 10000;
  const int limit = static_cast<int>(std::min<size_t>(name.size(), 200) / 3) + 2;
  std::vector<std::pair<int, absl::string_view>> near;
  for (size_t i = 0; i < std::min(entries_.size(), kMostCompared); ++i) {
    const absl::string_view other = entries_[i].name;
    if (other.size() > 1000 || name.size() > 1000) continue;
    int distance = EditDistance(name, other, limit);
    if (distance == limit && !name.empty() && absl::StrContains(other, name)) distance = limit - 1;
    if (distance < limit) near.emplace_back(distance, other);
  }
  std::sort(near.begin(), near.end());
  if (near.size() > kMostNames) near.resize(kMostNames);
  std::string hint;
  if (!near.empty()) {
    hint = absl::StrCat("; the nearest names that it has: ",
                        absl::StrJoin(near, ", ", [](std::string* out, const auto& p) {
                          absl::StrAppend(out, "'", Printable(p.second), "'");
                        }));
  }
  return NotFound("Key ", Printable(name), " not found in checkpoint '", prefix_, "'", hint);
}

absl::StatusOr<const std::map<std::string, std::string>*> BundleReader::ObjectNames() const {
  {
    MutexLock lock(&mu_);
    if (object_names_) return &*object_names_;
  }
  constexpr char kObjectGraph[] = "_CHECKPOINTABLE_OBJECT_GRAPH";
  std::map<std::string, std::string> names;
  if (Find(kObjectGraph)) {
    FERRY_ASSIGN_OR_RETURN(const Tensor t, Read(kObjectGraph));
    proto::TrackableObjectGraph graph;
    if (t.dtype() != DType::kString || t.num_elements() != 1 ||
        !graph.ParseFromString(t.data<std::string>()[0])) {
      return DataLoss("'", kObjectGraph, "' in checkpoint '", prefix_,
                      "' is no TrackableObjectGraph");
    }
    for (const auto& node : graph.nodes()) {
      for (const auto& attribute : node.attributes()) {
        if (!attribute.full_name().empty()) {
          names[attribute.full_name()] = attribute.checkpoint_key();
        }
      }
    }
  }
  MutexLock lock(&mu_);
  if (!object_names_) object_names_ = std::move(names);
  return &*object_names_;
}

absl::StatusOr<std::string> BundleReader::KeyOfObject(absl::string_view name) const {
  FERRY_ASSIGN_OR_RETURN(const auto* names, ObjectNames());
  const auto it = names->find(std::string(name));
  return it == names->end() ? std::string() : it->second;
}

absl::StatusOr<const RandomAccessFile*> BundleReader::Shard(int shard) const {
  MutexLock lock(&mu_);
  std::unique_ptr<RandomAccessFile>& file = shards_[shard];
  if (!file) {
    const std::string path = DataFileName(prefix_, shard, num_shards_);
    absl::StatusOr<std::unique_ptr<RandomAccessFile>> opened = fs_->OpenForRead(path);
    if (absl::IsNotFound(opened.status())) {
      return NotFound("the checkpoint '", prefix_, "' lacks its data file '", path, "'");
    }
    if (!opened.ok()) return opened.status();
    file = *std::move(opened);
  }
  return file.get();
}

absl::Status BundleReader::CheckEntry(const Entry& entry) const {
  if (!entry.problem.empty()) return absl::DataLossError(entry.problem);
  if (is_v1_ || !entry.parts.empty()) return absl::OkStatus();
  FERRY_ASSIGN_OR_RETURN(const RandomAccessFile* file, Shard(entry.shard));
  if (entry.offset > file->size() || entry.size > file->size() - entry.offset) {
    return DataLoss("'", DataFileName(prefix_, entry.shard, num_shards_), "' has ", file->size(),
                    " bytes, but tensor '", Printable(entry.name), "' needs ", entry.size, " at ",
                    entry.offset, ": the file was truncated");
  }
  return absl::OkStatus();
}

absl::Status BundleReader::Check(const Entry& entry) const {
  FERRY_RETURN_IF_ERROR(CheckEntry(entry));
  for (const Entry& part : entry.parts) FERRY_RETURN_IF_ERROR(CheckEntry(part));
  return absl::OkStatus();
}

// ---- Reading ----

// What one thread reads at a time: a part of one request, or a run of small ones side by side.
struct BundleReader::Piece {
  absl::Span<Request* const> requests;  // By offset; more than one only if each is small.
  uint64_t begin = 0, end = 0;          // In the file.
  uint32_t crc = 0;                     // Of a part of a large one.
  absl::Status status;
};

absl::Status BundleReader::BadChecksum(const Entry& entry, uint32_t found) const {
  return DataLoss("TensorBundle at ", prefix_, " shard ", entry.shard, " (", entry.size,
                  " bytes): Checksum does not match: stored ", MaskCrc32c(entry.crc),
                  " vs. calculated on the restored bytes ", MaskCrc32c(found), " (tensor '",
                  Printable(entry.name), "', at ", entry.offset, " of '",
                  DataFileName(prefix_, entry.shard, num_shards_), "')");
}

// As ReadPiece, of requests of which some are for GPUs.
absl::Status BundleReader::ReadPieceToGpus(Piece* piece, GpuUpload* upload) const {
  const Entry& first = *piece->requests[0]->entry;
  FERRY_ASSIGN_OR_RETURN(const RandomAccessFile* file, Shard(first.shard));
  for (uint64_t at = piece->begin; at < piece->end;) {
    const size_t n = std::min<uint64_t>(GpuUpload::kSlotBytes, piece->end - at);
    FERRY_ASSIGN_OR_RETURN(const int slot, upload->Acquire());
    char* const bytes = upload->slot(slot);
    const auto fill = [&]() -> absl::Status {
      // By blocks that stay in the cache for the crc.
      for (size_t done = 0; done < n; done += kChunk) {
        const size_t block = std::min(kChunk, n - done);
        FERRY_RETURN_IF_ERROR(file->Read(at + done, block, bytes + done));
        if (piece->requests.size() == 1) {
          piece->crc = ExtendCrc32c(piece->crc, bytes + done, block);
        }
      }
      if (piece->requests.size() == 1) {
        const Request& request = *piece->requests[0];
        return upload->Send(slot, request.gpu,
                            {{0, n, static_cast<char*>(request.out) + (at - first.offset)}});
      }
      std::map<GpuDevice*, std::vector<GpuUpload::Piece>> sends;
      for (Request* request : piece->requests) {
        const Entry& entry = *request->entry;
        const size_t from = entry.offset - piece->begin;
        const uint32_t crc = ExtendCrc32c(0, bytes + from, entry.size);
        if (crc != entry.crc) request->status = BadChecksum(entry, crc);
        if (!request->out || entry.size == 0) continue;
        if (request->gpu) {
          sends[request->gpu].push_back({from, entry.size, request->out});
        } else {
          std::memcpy(request->out, bytes + from, entry.size);
        }
      }
      for (const auto& [gpu, pieces] : sends) {
        FERRY_RETURN_IF_ERROR(upload->Send(slot, gpu, pieces));
      }
      return absl::OkStatus();
    };
    const absl::Status status = fill();
    upload->Release(slot);
    FERRY_RETURN_IF_ERROR(status);
    at += n;
  }
  return absl::OkStatus();
}

absl::Status BundleReader::ReadPiece(Piece* piece, GpuUpload* upload) const {
  if (std::any_of(piece->requests.begin(), piece->requests.end(),
                  [](const Request* r) { return r->gpu && r->out; })) {
    return ReadPieceToGpus(piece, upload);
  }
  const Entry& first = *piece->requests[0]->entry;
  FERRY_ASSIGN_OR_RETURN(const RandomAccessFile* file, Shard(first.shard));
  // For bytes that nobody keeps, and for small tensors that are read together.
  thread_local std::unique_ptr<char[]> scratch;
  const auto get_scratch = [] {
    if (!scratch) scratch.reset(new char[kChunk]);
    return scratch.get();
  };
  if (piece->requests.size() == 1) {
    Request* request = piece->requests[0];
    char* out = static_cast<char*>(request->out);
    for (uint64_t at = piece->begin; at < piece->end;) {
      const size_t n = std::min<uint64_t>(kChunk, piece->end - at);
      char* to = out ? out + (at - first.offset) : get_scratch();
      FERRY_RETURN_IF_ERROR(file->Read(at, n, to));
      piece->crc = ExtendCrc32c(piece->crc, to, n);
      at += n;
    }
    return absl::OkStatus();
  }
  char* bytes = get_scratch();
  FERRY_RETURN_IF_ERROR(file->Read(piece->begin, piece->end - piece->begin, bytes));
  for (Request* request : piece->requests) {
    const Entry& entry = *request->entry;
    const char* from = bytes + (entry.offset - piece->begin);
    const uint32_t crc = ExtendCrc32c(0, from, entry.size);
    if (crc != entry.crc) request->status = BadChecksum(entry, crc);
    if (request->out && entry.size > 0) std::memcpy(request->out, from, entry.size);
  }
  return absl::OkStatus();
}

absl::Status BundleReader::ReadInto(absl::Span<Request> requests, ThreadPool* pool) const {
  std::vector<Request*> order;
  order.reserve(requests.size());
  for (Request& request : requests) {
    request.status = absl::OkStatus();
    if (!CanReadInto(*request.entry)) {
      request.status = Internal("tensor '", Printable(request.entry->name),
                                "' can't be read straight into memory");
    } else if (request.entry->size == 0) {
      if (request.entry->crc != 0) request.status = BadChecksum(*request.entry, 0);
    } else {
      request.status = CheckEntry(*request.entry);
      if (request.status.ok()) order.push_back(&request);
    }
  }
  std::sort(order.begin(), order.end(), [](const Request* a, const Request* b) {
    return std::tie(a->entry->shard, a->entry->offset) <
           std::tie(b->entry->shard, b->entry->offset);
  });
  std::vector<Piece> pieces;
  for (size_t i = 0; i < order.size();) {
    const Entry& entry = *order[i]->entry;
    uint64_t end = entry.offset + entry.size;
    size_t j = i + 1;
    while (j < order.size() && order[j]->entry->shard == entry.shard &&
           order[j]->entry->offset == end && end + order[j]->entry->size <= entry.offset + kChunk) {
      end += order[j++]->entry->size;
    }
    const absl::Span<Request* const> together(order.data() + i, j - i);
    // Large ones are split at fixed places.
    for (uint64_t at = entry.offset; at < end; at += kPieceBytes) {
      pieces.emplace_back();
      pieces.back().requests = together;
      pieces.back().begin = at;
      pieces.back().end = std::min(end, at + kPieceBytes);
    }
    i = j;
  }
  GpuUpload upload;
  std::vector<GpuDevice*> gpus;
  for (const Request& r : requests) {
    if (r.gpu && std::find(gpus.begin(), gpus.end(), r.gpu) == gpus.end()) gpus.push_back(r.gpu);
  }
  if (!gpus.empty()) FERRY_RETURN_IF_ERROR(upload.Init(gpus));
  const auto read = [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      Piece& piece = pieces[static_cast<size_t>(i)];
      piece.status = ReadPiece(&piece, &upload);
    }
  };
  if (pool && pieces.size() > 1) {
    pool->ParallelFor(static_cast<int64_t>(pieces.size()), 1, read);
  } else {
    read(0, static_cast<int64_t>(pieces.size()));
  }
  const absl::Status uploaded = upload.Finish();
  for (size_t i = 0; i < pieces.size();) {
    uint32_t crc = 0;
    const absl::Span<Request* const> together = pieces[i].requests;
    absl::Status status;
    for (; i < pieces.size() && pieces[i].requests.data() == together.data(); ++i) {
      KeepFirst(&status, pieces[i].status);
      crc = CombineCrc32c(crc, pieces[i].crc, pieces[i].end - pieces[i].begin);
    }
    for (Request* request : together) KeepFirst(&request->status, status);
    if (together.size() == 1 && status.ok() && crc != together[0]->entry->crc) {
      together[0]->status = BadChecksum(*together[0]->entry, crc);
    }
  }
  for (const Request& request : requests) FERRY_RETURN_IF_ERROR(request.status);
  return uploaded;
}

absl::Status BundleReader::ReadStrings(const Entry& entry, Tensor* out) const {
  FERRY_ASSIGN_OR_RETURN(const RandomAccessFile* file, Shard(entry.shard));
  std::string bytes(static_cast<size_t>(entry.size), '\0');
  FERRY_RETURN_IF_ERROR(file->Read(entry.offset, bytes.size(), &bytes[0]));
  const auto bad = [&](absl::string_view what) {
    return DataLoss("'", DataFileName(prefix_, entry.shard, num_shards_), "': string tensor '",
                    Printable(entry.name), "' (", entry.size, " bytes at ", entry.offset,
                    "): ", what);
  };
  absl::string_view rest = bytes;
  std::vector<uint64_t> lengths;
  lengths.reserve(static_cast<size_t>(out->num_elements()));
  uint32_t crc = 0;
  uint64_t total = 0;
  for (int64_t i = 0; i < out->num_elements(); ++i) {
    uint64_t length;
    if (!ConsumeVarint(&rest, &length) || length > bytes.size()) {
      return bad(absl::StrCat("the length of element ", i, " makes no sense"));
    }
    lengths.push_back(length);
    total += length;  // Each is below the file's size, and so is their number: no overflow
    if (total > bytes.size()) return bad("its lengths are more than its bytes");
    char fixed[8];
    for (int b = 0; b < 8; ++b) fixed[b] = static_cast<char>(length >> (8 * b));
    crc = ExtendCrc32c(crc, fixed, length <= UINT32_MAX ? 4 : 8);
  }
  if (rest.size() < 4 || rest.size() - 4 != total) {
    return bad("its lengths don't make up its bytes");
  }
  if (LoadFixed32(rest.data()) != MaskCrc32c(crc)) {
    return bad("The length checksum does not match the string lengths");
  }
  crc = ExtendCrc32c(crc, rest.data(), rest.size());
  if (crc != entry.crc) return BadChecksum(entry, crc);
  rest.remove_prefix(4);
  std::string* strings = out->data<std::string>();
  for (size_t i = 0; i < lengths.size(); ++i) {
    strings[i].assign(rest.data(), lengths[i]);
    rest.remove_prefix(lengths[i]);
  }
  return absl::OkStatus();
}

namespace {

// How many values of its dtype the message holds in its typed field; -1 for dtypes that V1
// doesn't have.
int64_t TypedValues(const proto::TensorProto& t, DType dtype) {
  switch (dtype) {
    case DType::kFloat:
      return t.float_val_size();
    case DType::kDouble:
      return t.double_val_size();
    case DType::kInt64:
      return t.int64_val_size();
    case DType::kUint64:
      return t.uint64_val_size();
    case DType::kUint32:
      return t.uint32_val_size();
    case DType::kBool:
      return t.bool_val_size();
    case DType::kString:
      return t.string_val_size();
    case DType::kComplex64:
      return t.scomplex_val_size() / 2;
    case DType::kComplex128:
      return t.dcomplex_val_size() / 2;
    case DType::kHalf:
    case DType::kBfloat16:
      return t.half_val_size();
    case DType::kInt32:
    case DType::kInt16:
    case DType::kInt8:
    case DType::kUint8:
    case DType::kUint16:
    case DType::kQint8:
    case DType::kQuint8:
    case DType::kQint16:
    case DType::kQuint16:
    case DType::kQint32:
      return t.int_val_size();
    default:
      return -1;
  }
}

}  // namespace

absl::Status BundleReader::ReadV1(const Entry& entry, Tensor* out) const {
  const auto bad = [&](absl::string_view what) {
    return DataLoss("'", prefix_, "': the data of tensor '", Printable(entry.name), "' ", what);
  };
  proto::SavedTensorSlices slices;
  if (!slices.ParseFromArray(entry.v1.data(), static_cast<int>(entry.v1.size()))) {
    return bad("can't be read");
  }
  if (slices.data().name() != entry.name) return bad("is that of another tensor");
  proto::TensorProto* data = slices.mutable_data()->mutable_data();
  const int64_t elements = entry.shape.num_elements();
  const bool full = !data->tensor_content().empty()
                        ? data->tensor_content().size() ==
                              static_cast<size_t>(elements) * ElementSize(entry.dtype)
                        : TypedValues(*data, entry.dtype) == elements;
  if (!full) return bad(absl::StrCat("doesn't have the ", elements, " elements of its shape"));
  data->set_dtype(static_cast<proto::DataType>(entry.dtype));
  data->clear_tensor_shape();
  data->mutable_tensor_shape();
  for (const int64_t dim : entry.shape.dims()) {
    data->mutable_tensor_shape()->add_dim()->set_size(dim);
  }
  absl::StatusOr<Tensor> tensor = FromProto(*data);
  if (!tensor.ok()) return bad(tensor.status().message());
  *out = *std::move(tensor);
  return absl::OkStatus();
}

absl::StatusOr<Tensor> BundleReader::ReadEntry(const Entry& entry, ThreadPool* pool) const {
  Tensor tensor;
  if (is_v1_) {
    FERRY_RETURN_IF_ERROR(ReadV1(entry, &tensor));
    return tensor;
  }
  FERRY_RETURN_IF_ERROR(CheckEntry(entry));
  FERRY_ASSIGN_OR_RETURN(tensor, Tensor::Allocate(entry.dtype, entry.shape));
  if (entry.dtype == DType::kString) {
    FERRY_RETURN_IF_ERROR(ReadStrings(entry, &tensor));
  } else {
    Request request{&entry, tensor.raw()};
    FERRY_RETURN_IF_ERROR(ReadInto(absl::MakeSpan(&request, 1), pool));
  }
  return tensor;
}

absl::StatusOr<Tensor> BundleReader::Read(absl::string_view name, ThreadPool* pool) const {
  FERRY_ASSIGN_OR_RETURN(const Entry* entry, Lookup(name));
  if (!entry->problem.empty()) return absl::DataLossError(entry->problem);
  if (entry->parts.empty() && entry->slices.empty()) return ReadEntry(*entry, pool);
  TensorSlice full;
  full.extents.resize(static_cast<size_t>(entry->shape.rank()));
  return ReadSlice(name, full, pool);
}

absl::StatusOr<Tensor> BundleReader::ReadSlice(absl::string_view name, const TensorSlice& slice,
                                               ThreadPool* pool) const {
  FERRY_ASSIGN_OR_RETURN(const Entry* entry, Lookup(name));
  absl::StatusOr<TensorShape> shape = SliceShape(slice, entry->shape);
  if (!shape.ok()) {
    return Annotate(shape.status(),
                    absl::StrCat("tensor '", Printable(name), "' in checkpoint '", prefix_, "'"));
  }
  FERRY_RETURN_IF_ERROR(Check(*entry));
  if (slice.is_full() && entry->slices.empty()) return ReadEntry(*entry, pool);
  FERRY_ASSIGN_OR_RETURN(Tensor out, Tensor::Allocate(entry->dtype, *shape));
  // The elements that have come, so that parts which overlap can't hide a gap.
  std::vector<bool> present(static_cast<size_t>(shape->num_elements()));
  std::vector<int64_t> want_start, want_size, have_start, have_size;
  Bounds(slice, entry->shape, &want_start, &want_size);
  const auto copy = [&](const Entry& part, const TensorSlice& place) -> absl::Status {
    Bounds(place, entry->shape, &have_start, &have_size);
    std::vector<int64_t> from(have_start.size()), to(from), size(from);
    for (size_t d = 0; d < from.size(); ++d) {
      const int64_t begin = std::max(want_start[d], have_start[d]);
      const int64_t end = std::min(want_start[d] + want_size[d], have_start[d] + have_size[d]);
      if (end <= begin) return absl::OkStatus();  // Nothing in common.
      from[d] = begin - have_start[d];
      to[d] = begin - want_start[d];
      size[d] = end - begin;
    }
    FERRY_ASSIGN_OR_RETURN(const Tensor tensor, ReadEntry(part, pool));
    CopyBox(tensor, from, &out, to, size);
    ForEachRun(part.shape, from, *shape, to, size,
               [&](int64_t, int64_t t, int64_t n) { std::fill_n(present.begin() + t, n, true); });
    return absl::OkStatus();
  };
  if (entry->slices.empty()) {
    TensorSlice full;
    full.extents.resize(static_cast<size_t>(entry->shape.rank()));
    FERRY_RETURN_IF_ERROR(copy(*entry, full));
  }
  for (size_t i = 0; i < entry->slices.size(); ++i) {
    FERRY_RETURN_IF_ERROR(copy(entry->parts[i], entry->slices[i]));
  }
  if (std::find(present.begin(), present.end(), false) != present.end()) {
    return DataLoss("the parts of tensor '", Printable(name), "' in checkpoint '", prefix_,
                    "' don't cover the slice ", slice.DebugString());
  }
  return out;
}

std::vector<absl::Status> BundleReader::Verify(
    ThreadPool* pool, const std::function<void(uint64_t)>& progress) const {
  std::vector<absl::Status> damage;
  uint64_t done = 0;
  const auto advance = [&](uint64_t bytes) {
    done += bytes;
    if (progress) progress(done);
  };
  const auto note = [&damage](const absl::Status& status) {
    if (!status.ok()) damage.push_back(status);
  };
  std::vector<const Entry*> with_bytes;
  for (const Entry& entry : entries_) {
    if (!entry.problem.empty()) {
      note(absl::DataLossError(entry.problem));
      continue;
    }
    if (entry.slices.empty()) with_bytes.push_back(&entry);
    for (const Entry& part : entry.parts) with_bytes.push_back(&part);
    // The parts' own bytes are read below; whether they cover the tensor only a read tells.
    if (!entry.slices.empty()) {
      std::vector<bool> present(static_cast<size_t>(entry.shape.num_elements()));
      for (size_t i = 0; i < entry.slices.size(); ++i) {
        std::vector<int64_t> start, size;
        Bounds(entry.slices[i], entry.shape, &start, &size);
        ForEachRun(
            entry.parts[i].shape, std::vector<int64_t>(start.size(), 0), entry.shape, start, size,
            [&](int64_t, int64_t t, int64_t n) { std::fill_n(present.begin() + t, n, true); });
      }
      if (std::find(present.begin(), present.end(), false) != present.end()) {
        note(DataLoss("the parts of tensor '", Printable(entry.name), "' in checkpoint '", prefix_,
                      "' leave gaps"));
      }
    }
  }
  if (is_v1_) {
    for (const Entry* entry : with_bytes) note(ReadEntry(*entry, pool).status());
    return damage;
  }

  // Every data file is there, and every byte of it is a tensor's.
  std::map<int, std::vector<const Entry*>> by_shard;
  for (const Entry* entry : with_bytes) by_shard[entry->shard].push_back(entry);
  constexpr int kMostShards = 100000;  // What five digits can name.
  for (int shard = 0; shard < std::min(num_shards_, kMostShards); ++shard) {
    const absl::StatusOr<const RandomAccessFile*> file = Shard(shard);
    if (!file.ok()) {
      note(file.status());
      by_shard.erase(shard);
      if (damage.size() > 100) break;
      continue;
    }
    std::vector<const Entry*>& entries = by_shard[shard];
    std::sort(entries.begin(), entries.end(), [](const Entry* a, const Entry* b) {
      return std::tie(a->offset, a->size) < std::tie(b->offset, b->size);
    });
    uint64_t end = 0;
    bool complete = true;
    const std::string path = DataFileName(prefix_, shard, num_shards_);
    for (const Entry* entry : entries) {
      if (entry->size > 0 && entry->offset != end) {
        note(DataLoss("'", path, "': the ", entry->offset - end, " bytes at ", end,
                      " belong to no tensor"));
      }
      end = std::max(end, entry->offset + entry->size);
      complete = complete && CheckEntry(*entry).ok();
    }
    if (complete && end != (*file)->size()) {
      note(DataLoss("'", path, "' has ", (*file)->size(), " bytes, its tensors end at ", end));
    }
  }
  std::vector<Request> requests;
  for (const auto& [shard, entries] : by_shard) {
    for (const Entry* entry : entries) {
      if (CanReadInto(*entry)) {
        requests.push_back({entry, nullptr});
      } else {
        note(ReadEntry(*entry, pool).status());
        advance(entry->size);
      }
    }
  }
  // In parts large enough to be read by all threads.
  constexpr uint64_t kPart = uint64_t{64} << 20;
  for (size_t begin = 0; begin < requests.size();) {
    uint64_t bytes = 0;
    size_t end = begin;
    while (end < requests.size() && bytes < kPart) bytes += requests[end++].entry->size;
    // Each request has its own status.
    ReadInto(absl::MakeSpan(requests).subspan(begin, end - begin), pool).IgnoreError();
    begin = end;
    advance(bytes);
  }
  for (const Request& request : requests) note(request.status);
  return damage;
}

}  // namespace ferry
