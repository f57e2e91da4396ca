#include "server/page.h"

#include "core/file.h"
#include "core/log.h"
#include "server/api_error.h"
#include "server/service.h"

namespace lathe {
namespace {

constexpr uint64_t most_report_bytes = 2 << 20;  // an answer's unsent bytes are bounded too

struct File {
  std::string_view name, text;
};
constexpr File files[] = {
#include "server_files.inc"
};

constexpr std::pair<std::string_view, std::string_view> types[] = {{".html", "text/html; charset=utf-8"},
                                                                   {".css", "text/css; charset=utf-8"},
                                                                   {".js", "text/javascript; charset=utf-8"}};

HttpExchange::Headers guarded(const char* policy) {
  return {{"Content-Security-Policy", policy},
          {"X-Content-Type-Options", "nosniff"},
          {"Referrer-Policy", "no-referrer"},
          {"Cache-Control", "no-cache"}};
}

const std::string& existing(const std::string& report) {
  if (report.empty())
    throw ApiError(404, "not_found_error",
                   "this model has no report; `lathe optimize` makes models with one");
  return report;
}

}  // namespace

bool send_page_file(std::string_view path, HttpExchange& exchange) {
  static constexpr std::string_view index = "/page/index.html";
  if (path == index) return false;  // one address each
  const std::string_view wanted = path == "/" ? index : path;
  for (const File& file : files) {
    if (!wanted.starts_with('/') || wanted.substr(1) != file.name) continue;
    for (const auto& [ending, type] : types)
      if (wanted.ends_with(ending))
        exchange.send(200, type, std::string(file.text),
                      guarded("default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
                              "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
                              "require-trusted-types-for 'script'; trusted-types 'none'"));
    return true;
  }
  return false;
}

ModelReport load_report(const fs::path& model) {
  const auto read = [&](const char* name) {
    const fs::path path = model / "lathe" / name;
    std::error_code failed;
    if (!fs::is_regular_file(path, failed)) return std::string();
    if (fs::file_size(path, failed) > most_report_bytes || failed) {
      warn("{}: expected at most {} bytes; it is not served", printable(path.string()), most_report_bytes);
      return std::string();
    }
    return std::string(Mapping(path).text());
  };
  return {read("report.json"), read("report.html")};
}

void report_json(Service& service, const Json&, std::shared_ptr<HttpExchange> exchange) {
  exchange->send(200, "application/json", existing(service.report.json),
                 {{"X-Content-Type-Options", "nosniff"}});
}

void report_html(Service& service, const Json&, std::shared_ptr<HttpExchange> exchange) {
  exchange->send(200, types[0].second, existing(service.report.html),
                 guarded("sandbox; default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; "
                         "form-action 'none'; frame-ancestors 'none'"));
}

}  // namespace lathe
