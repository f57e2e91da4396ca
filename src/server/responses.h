// OpenAI's /v1/responses, without state: nothing is kept, so every request says all of the conversation.
// Shapes: https://platform.openai.com/docs/api-reference/responses and .../responses-streaming.
#pragma once

#include <memory>

#include "server/http.h"
#include "server/service.h"

namespace lathe {

void respond(Service&, const Json& body, std::shared_ptr<HttpExchange>);

}  // namespace lathe
