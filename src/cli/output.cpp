#include "cli/output.h"

#include "core/error.h"
#include "eval/report.h"

namespace lathe {
namespace {

constexpr const char* made_by = "made_by";

// Whether both exist and `path` is `of` or lies in it, whatever the names on the way.
bool lies_in(const fs::path& path, const fs::path& of) {
  std::error_code ignored;
  for (fs::path at = fs::canonical(path, ignored); !at.empty(); at = at.parent_path()) {
    if (fs::equivalent(at, of, ignored)) return true;
    if (at == at.root_path()) break;
  }
  return false;
}

// lathe/packed says nothing: running a model leaves it beside anybody's weights.
bool is_ours(const fs::path& directory) {
  return fs::exists(directory / "lathe" / made_by) || fs::exists(directory / "lathe" / "recipe.yaml");
}

const fs::path& apart(const fs::path& target, std::initializer_list<fs::path> sources) {
  keep_apart(target, sources);
  return target;
}

}  // namespace

void keep_apart(const fs::path& output, std::initializer_list<fs::path> sources) {
  for (const fs::path& source : sources) {
    const bool inside = lies_in(output, source), around = lies_in(source, output);
    if (!inside && !around) continue;
    throw input_error(output.string(), fmt::format("an output other than {}, which is read", source.string()),
                      inside && around ? "the same"
                      : inside         ? "a part of it"
                                       : "what holds it",
                      "it would be replaced: choose another -o");
  }
}

OutputDirectory::OutputDirectory(const fs::path& target, std::initializer_list<fs::path> sources)
    : directory_(apart(target, sources), is_ours), guard_(directory_.path()) {}

void OutputDirectory::commit() {
  const fs::path folder = directory_.path() / "lathe";
  fs::create_directories(folder);
  FileWriter(folder / made_by).write(fmt::format("lathe {}\n", version()));
  directory_.commit();
}

OutputFile::OutputFile(const fs::path& target, std::initializer_list<fs::path> sources)
    : file_(apart(target, sources)), guard_(file_.path()) {}

}  // namespace lathe
