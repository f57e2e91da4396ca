#include "search/journal.h"

#include <sqlite3.h>

#include "core/error.h"
#include "core/hash.h"

namespace lathe {
namespace {

constexpr std::string_view schema = R"sql(
CREATE TABLE IF NOT EXISTS study (id TEXT PRIMARY KEY, created TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP, key TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS measurement (study TEXT NOT NULL REFERENCES study, kind TEXT NOT NULL, subject TEXT NOT NULL,
  created TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP, result TEXT NOT NULL, PRIMARY KEY (study, kind, subject));
)sql";
constexpr int application_id = 0x4c615468;  // marks the file as a journal; 0: a new file

}  // namespace

struct Journal::Impl {
  std::filesystem::path path;
  std::string study;
  sqlite3* db = nullptr;

  ~Impl() { sqlite3_close(db); }

  [[noreturn]] void fail_with(int code) const {
    if (code == SQLITE_NOTADB || code == SQLITE_CORRUPT)
      throw input_error(path.string(), "a journal of `lathe optimize`", "a damaged file",
                        "delete it to start afresh");
    if (code == SQLITE_BUSY || code == SQLITE_LOCKED)
      throw Error(fmt::format("{}: another search is using this journal", path.string()));
    throw Error(fmt::format("{}: {}", path.string(), sqlite3_errmsg(db)));
  }

  void execute(std::string_view sql) const {
    if (const int code = sqlite3_exec(db, std::string(sql).c_str(), nullptr, nullptr, nullptr);
        code != SQLITE_OK)
      fail_with(code);
  }

  // Runs one statement; the first column of its first row, nothing without rows.
  std::optional<std::string> query(std::string_view sql,
                                   std::initializer_list<std::string_view> values = {}) const {
    sqlite3_stmt* raw = nullptr;
    if (const int code = sqlite3_prepare_v2(db, sql.data(), static_cast<int>(sql.size()), &raw, nullptr);
        code != SQLITE_OK)
      fail_with(code);
    const std::unique_ptr<sqlite3_stmt, int (*)(sqlite3_stmt*)> statement(raw, sqlite3_finalize);
    int column = 0;
    for (const std::string_view v : values)
      sqlite3_bind_text(raw, ++column, v.data(), static_cast<int>(v.size()), SQLITE_TRANSIENT);
    const int code = sqlite3_step(raw);
    if (code == SQLITE_DONE) return std::nullopt;
    if (code != SQLITE_ROW) fail_with(code);
    const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(raw, 0));
    return text ? std::string(text) : std::string();
  }
};

Journal::Journal(const std::filesystem::path& path, const Json& study) : impl_(std::make_unique<Impl>()) {
  impl_->path = path;
  impl_->study = sha256(study.dump());
  if (path.has_parent_path()) std::filesystem::create_directories(path.parent_path());
  if (sqlite3_open_v2(path.c_str(), &impl_->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, nullptr) !=
      SQLITE_OK)
    throw InputError(fmt::format("{}: cannot open: {}", path.string(), sqlite3_errmsg(impl_->db)));
  sqlite3_busy_timeout(impl_->db, 2000);
  impl_->query("PRAGMA journal_mode = WAL");
  impl_->execute("PRAGMA synchronous = FULL");
  const std::string id = impl_->query("PRAGMA application_id").value_or("0");
  const std::string tables = impl_->query("SELECT count(*) FROM sqlite_master").value_or("0");
  const bool fresh = id == "0" && tables == "0";
  if (!fresh && id != std::to_string(application_id)) impl_->fail_with(SQLITE_NOTADB);
  if (impl_->query("PRAGMA quick_check").value_or("") != "ok") impl_->fail_with(SQLITE_CORRUPT);
  impl_->execute(fmt::format("PRAGMA application_id = {}", application_id));
  impl_->execute(schema);
  impl_->query("INSERT OR IGNORE INTO study (id, key) VALUES (?, ?)", {impl_->study, study.dump()});
}

Journal::~Journal() = default;

std::optional<Json> Journal::find(std::string_view kind, std::string_view subject) const {
  const auto text =
      impl_->query("SELECT result FROM measurement WHERE study = ? AND kind = ? AND subject = ?",
                   {impl_->study, kind, subject});
  if (!text) return std::nullopt;
  return parse_json(*text, impl_->path.string());
}

void Journal::record(std::string_view kind, std::string_view subject, const Json& measured) {
  impl_->query("INSERT OR REPLACE INTO measurement (study, kind, subject, result) VALUES (?, ?, ?, ?)",
               {impl_->study, kind, subject, measured.dump()});
}

int64_t Journal::count(std::string_view kind) const {
  return std::stoll(
      impl_->query("SELECT count(*) FROM measurement WHERE study = ? AND kind = ?", {impl_->study, kind})
          .value_or("0"));
}

}  // namespace lathe
