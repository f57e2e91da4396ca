#include "core/file.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

#include "core/error.h"
#include "core/leftovers.h"

namespace lathe {
namespace {

std::string reason() { return std::strerror(errno); }

void sync_path(const fs::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) fail("{}: cannot open to sync: {}", path.string(), reason());
  const int rc = ::fsync(fd);
  ::close(fd);
  if (rc != 0) fail("{}: fsync: {}", path.string(), reason());
}

fs::path parent_of(const fs::path& path) {
  return path.has_parent_path() ? path.parent_path() : fs::path(".");
}

// One becomes the other at once: of two renames the first leaves nothing there, should the second not come.
// False where one is missing or the file system cannot.
bool exchange(const fs::path& a, const fs::path& b) {
  return ::renameat2(AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), RENAME_EXCHANGE) == 0;
}

}  // namespace

Mapping::Mapping(const fs::path& path) {
  const int fd =
      ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a pipe must be refused, not waited for
  if (fd < 0) throw InputError(fmt::format("{}: cannot open: {}", path.string(), reason()));
  struct stat info {};
  if (::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    ::close(fd);
    throw input_error(path.string(), "a regular file", "something else");
  }
  size_ = static_cast<size_t>(info.st_size);
  if (size_ > 0) {
    void* p = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd, 0);
    const int error = errno;
    ::close(fd);
    if (p == MAP_FAILED)
      throw InputError(fmt::format("{}: cannot map: {}", path.string(), std::strerror(error)));
    data_ = std::shared_ptr<const void>(p, [n = size_](const void* q) { ::munmap(const_cast<void*>(q), n); });
  } else {
    ::close(fd);
  }
}

Storage Mapping::view(size_t offset, size_t bytes) const {
  if (offset > size_ || bytes > size_ - offset)
    fail("mapping: range {}+{} outside {} bytes", offset, bytes, size_);
  auto* p = static_cast<std::byte*>(const_cast<void*>(data_.get()));
  return {p + offset, bytes, data_};
}

void Mapping::forget(size_t offset, size_t bytes) const {
  if (!data_ || offset >= size_) return;
  const size_t page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const size_t begin = (offset + page - 1) / page * page, end = std::min(size_, offset + bytes) / page * page;
  if (begin < end)
    ::madvise(static_cast<std::byte*>(const_cast<void*>(data_.get())) + begin, end - begin, MADV_DONTNEED);
}

FileWriter::FileWriter(const fs::path& path) : path_(path) {
  fd_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd_ < 0) throw InputError(fmt::format("{}: cannot create: {}", path.string(), reason()));
}

FileWriter::~FileWriter() {
  if (fd_ >= 0) ::close(fd_);
}

void FileWriter::write(const void* data, size_t bytes) {
  auto* p = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t n = ::write(fd_, p, std::min<size_t>(bytes, 1u << 24));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) fail("{}: write: {}", path_.string(), reason());
    // The disk starts now, not at fsync. Nobody waits, and fsync still says what failed.
    if (n >= 1 << 20) ::sync_file_range(fd_, 0, 0, SYNC_FILE_RANGE_WRITE);
    p += n;
    bytes -= static_cast<size_t>(n);
  }
}

void FileWriter::finish() {
  if (::fsync(fd_) != 0) fail("{}: fsync: {}", path_.string(), reason());
  const int fd = std::exchange(fd_, -1);
  if (::close(fd) != 0) fail("{}: close: {}", path_.string(), reason());
}

void write_file_atomically(const fs::path& path, std::string_view contents) {
  AtomicFile file(path);
  FileWriter out(file.path());
  out.write(contents);
  out.finish();
  file.commit();
}

AtomicDirectory::AtomicDirectory(const fs::path& target, bool (*ours)(const fs::path&)) : target_(target) {
  if (!target_.has_filename()) target_ = target_.parent_path();
  if (target_.empty()) fail_input("output directory: expected a path, found an empty one");
  fs::create_directories(parent_of(target_));
  sweep_leftovers(target_);
  if (fs::exists(target_) && !(fs::is_directory(target_) && (fs::is_empty(target_) || ours(target_))))
    throw input_error(target_.string(), "a new path, an empty directory or what Lathe wrote there earlier",
                      fs::is_directory(target_) ? "files that it did not write" : "a file",
                      "choose another -o");
  temporary_ = temporary_beside(target_);
  fs::remove_all(temporary_);  // of a process that is gone and had the same number, as in containers
  fs::create_directories(temporary_);
}

AtomicDirectory::~AtomicDirectory() {
  std::error_code ignored;
  if (!committed_) fs::remove_all(temporary_, ignored);
}

void AtomicDirectory::commit() {
  for (const auto& entry : fs::recursive_directory_iterator(temporary_)) sync_path(entry.path());
  sync_path(temporary_);
  fs::path old = temporary_;  // where the earlier directory is afterwards
  if (!exchange(temporary_, target_)) {
    old = old_beside(target_);
    if (fs::exists(target_)) fs::rename(target_, old);
    fs::rename(temporary_, target_);
  }
  committed_ = true;
  sync_path(parent_of(target_));
  std::error_code ignored;
  fs::remove_all(old, ignored);
}

AtomicFile::AtomicFile(const fs::path& target) : target_(target) {
  if (!target_.has_filename() || fs::is_directory(target_))
    throw input_error(target_.string(), "the path of a file", "that of a directory", "choose another -o");
  fs::create_directories(parent_of(target_));
  sweep_leftovers(target_);
  temporary_ = temporary_beside(target_);
}

AtomicFile::~AtomicFile() {
  std::error_code ignored;
  if (!committed_) fs::remove(temporary_, ignored);
}

void AtomicFile::commit() {
  fs::rename(temporary_, target_);
  committed_ = true;
  sync_path(parent_of(target_));
}

}  // namespace lathe
