// Anthropic's /v1/messages. Shapes: https://docs.anthropic.com/en/api/messages and .../messages-streaming.
#pragma once

#include <memory>

#include "server/api_error.h"
#include "server/http.h"
#include "server/service.h"

namespace lathe {

void messages(Service&, const Json& body, std::shared_ptr<HttpExchange>);
void count_message_tokens(Service&, const Json& body, std::shared_ptr<HttpExchange>);
Json anthropic_error(const ApiError&);

}  // namespace lathe
