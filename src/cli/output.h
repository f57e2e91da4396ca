// What -o names: it replaces nothing that is read, and no model that Lathe did not write.
#pragma once

#include <initializer_list>

#include "cli/interrupt.h"
#include "core/file.h"

namespace lathe {

// InputError where `output` exists and is one of the sources, lies in one or holds one.
void keep_apart(const fs::path& output, std::initializer_list<fs::path> sources);

// An AtomicDirectory that an interrupt removes. What is committed says who made it, in lathe/made_by.
class OutputDirectory {
 public:
  // InputError as keep_apart(), and where there is a directory with files that Lathe did not write.
  OutputDirectory(const fs::path& target, std::initializer_list<fs::path> sources);
  const fs::path& path() const { return directory_.path(); }
  void commit();

 private:
  AtomicDirectory directory_;
  RemoveOnInterrupt guard_;
};

// The same for one file.
class OutputFile {
 public:
  OutputFile(const fs::path& target, std::initializer_list<fs::path> sources);
  const fs::path& path() const { return file_.path(); }
  void commit() { file_.commit(); }

 private:
  AtomicFile file_;
  RemoveOnInterrupt guard_;
};

}  // namespace lathe
