// What llama.cpp's own clients call: /completion, /props, /slots. Shapes:
// https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md
#pragma once

#include <memory>

#include "server/http.h"
#include "server/service.h"

namespace lathe {

void llama_complete(Service&, const Json& body, std::shared_ptr<HttpExchange>);
void llama_props(Service&, const Json& body, std::shared_ptr<HttpExchange>);
// As many as sequences may run at once; which sequence is in which says nothing here.
void llama_slots(Service&, const Json& body, std::shared_ptr<HttpExchange>);

}  // namespace lathe
