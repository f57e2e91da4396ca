// The page at /: a chat with the model, charts of /metrics, and the model's optimization report. Files of
// page/, embedded by the build as they are.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "core/json.h"
#include "server/http.h"

namespace lathe {

struct Service;

// Sends the file at this path, if it is one of the page's. They say nothing of the model and need no key: a
// browser that opens a page can send none. Nothing but them runs in it, and it talks to this server alone.
bool send_page_file(std::string_view path, HttpExchange&);

// What `lathe optimize` wrote beside a model; empty texts: it did not make this one, or what is there is too
// large to be one.
struct ModelReport {
  std::string json, html;
};
ModelReport load_report(const fs::path& model);

// The routes; 404 without a report. The HTML came with the model, so no script of it runs and it reaches
// nothing.
void report_json(Service&, const Json&, std::shared_ptr<HttpExchange>);
void report_html(Service&, const Json&, std::shared_ptr<HttpExchange>);

}  // namespace lathe
