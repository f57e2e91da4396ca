// Reading by mapping, writing atomically: a killed run leaves the old output or the new one, never half of
// one.
#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <string_view>

#include "core/tensor.h"

namespace lathe {

namespace fs = std::filesystem;

// A whole file, mapped read-only. Throws InputError when it cannot be opened or is not a regular file.
class Mapping {
 public:
  explicit Mapping(const fs::path&);
  std::span<const std::byte> bytes() const { return {static_cast<const std::byte*>(data_.get()), size_}; }
  std::string_view text() const { return {static_cast<const char*>(data_.get()), size_}; }
  // A view of part of the file that keeps the mapping alive. The range must lie inside the file.
  Storage view(size_t offset, size_t bytes) const;
  // Tells the kernel that a range will not be needed soon: streaming passes keep their resident memory small.
  void forget(size_t offset, size_t bytes) const;

 private:
  std::shared_ptr<const void> data_;
  size_t size_ = 0;
};

// An AtomicFile of these contents.
void write_file_atomically(const fs::path& path, std::string_view contents);

// A sequential writer without a buffer; throws Error naming the file when the disk says no.
class FileWriter {
 public:
  explicit FileWriter(const fs::path&);
  ~FileWriter();
  FileWriter(const FileWriter&) = delete;
  FileWriter& operator=(const FileWriter&) = delete;
  void write(const void* data, size_t bytes);
  void write(std::string_view text) { write(text.data(), text.size()); }
  void finish();  // fsync and close; without it the file is not to be trusted

 private:
  fs::path path_;
  int fd_ = -1;
};

// A directory that appears at `target` all at once, in place of an earlier one: write into path(), then
// commit(). Without one it is removed; what a killed run left beside `target` (leftovers.h) is by the next.
class AtomicDirectory {
 public:
  // Refuses (InputError) a target that exists and is neither an empty directory nor one that is `ours` to
  // replace, so that a mistyped -o never destroys anything else.
  AtomicDirectory(const fs::path& target, bool (*ours)(const fs::path& directory));
  ~AtomicDirectory();
  AtomicDirectory(const AtomicDirectory&) = delete;
  AtomicDirectory& operator=(const AtomicDirectory&) = delete;
  const fs::path& path() const { return temporary_; }
  void commit();

 private:
  fs::path target_, temporary_;
  bool committed_ = false;
};

// One file by the same rules, and the folders on the way to it. InputError where `target` is a directory.
class AtomicFile {
 public:
  explicit AtomicFile(const fs::path& target);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  const fs::path& path() const { return temporary_; }
  void commit();  // what was written is finished, or who reads it can tell

 private:
  fs::path target_, temporary_;
  bool committed_ = false;
};

}  // namespace lathe
