// The helpers of file_system.h that are made of a FileSystem's own calls.
#include "runtime/base/file_system.h"

#include <unistd.h>

#include <new>

#include "absl/strings/match.h"
#include "runtime/base/status.h"

namespace ferry {

absl::StatusOr<std::string> ReadFile(FileSystem* fs, const std::string& path) {
  FERRY_ASSIGN_OR_RETURN(std::unique_ptr<RandomAccessFile> file, fs->OpenForRead(path));
  const auto too_large = [&] {
    return ResourceExhausted("'", path, "': its ", file->size(), " bytes don't fit into memory");
  };
  // A sparse file may be of any size; the system hands out memory that it hasn't got.
  const double memory =
      static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGESIZE));
  if (static_cast<double>(file->size()) > 0.9 * memory) return too_large();
  std::string contents;
  try {
    contents.resize(static_cast<size_t>(file->size()));
  } catch (const std::bad_alloc&) {
    return too_large();
  }
  FERRY_RETURN_IF_ERROR(file->Read(0, contents.size(), &contents[0]));
  return contents;
}

absl::Status WriteFileAtomically(FileSystem* fs, const std::string& path, absl::string_view data) {
  const std::string temporary = path + ".ferry-tmp";
  const auto write = [&]() -> absl::Status {
    FERRY_ASSIGN_OR_RETURN(std::unique_ptr<WritableFile> file, fs->NewWritableFile(temporary));
    FERRY_RETURN_IF_ERROR(file->Append(data));
    FERRY_RETURN_IF_ERROR(file->Sync());
    FERRY_RETURN_IF_ERROR(file->Close());
    return fs->Rename(temporary, path);
  };
  absl::Status status = write();
  if (!status.ok()) {
    fs->Unlink(temporary).IgnoreError();  // What failed before is what the caller hears.
    return status;
  }
  return fs->SyncDir(DirName(path));
}

absl::Status CreateDirs(FileSystem* fs, const std::string& path) {
  const size_t end = path.find_last_not_of('/') + 1;  // 0: the root, or no name at all.
  if (end != 0 && end != path.size()) return CreateDirs(fs, path.substr(0, end));
  const absl::StatusOr<FileInfo> info = fs->Stat(path);
  if (info.ok()) {
    if (info->is_directory) return absl::OkStatus();
    return FailedPrecondition("'", path, "' is to be a directory, but is a file");
  }
  if (!absl::IsNotFound(info.status())) return info.status();
  const std::string parent = DirName(path);
  if (parent == path) return info.status();
  FERRY_RETURN_IF_ERROR(CreateDirs(fs, parent));
  const absl::Status made = fs->CreateDir(path);
  // Another process may have made it meanwhile.
  if (absl::IsAlreadyExists(made)) return absl::OkStatus();
  FERRY_RETURN_IF_ERROR(made);
  return fs->SyncDir(parent);
}

std::string DirName(absl::string_view path) {
  const size_t slash = path.rfind('/');
  if (slash == absl::string_view::npos) return ".";
  if (slash == 0) return "/";
  return std::string(path.substr(0, slash));
}

std::string BaseName(absl::string_view path) {
  const size_t slash = path.rfind('/');
  return std::string(slash == absl::string_view::npos ? path : path.substr(slash + 1));
}

std::string JoinPath(absl::string_view dir, absl::string_view name) {
  if (dir.empty() || absl::StartsWith(name, "/")) return std::string(name);
  if (name.empty()) return std::string(dir);
  if (absl::EndsWith(dir, "/")) return absl::StrCat(dir, name);
  return absl::StrCat(dir, "/", name);
}

}  // namespace ferry
