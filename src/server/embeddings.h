// /v1/embeddings (OpenAI's) and /v1/rerank (as Jina, Cohere and vLLM have it), where the server was started
// with --embeddings. Shapes: https://platform.openai.com/docs/api-reference/embeddings
#pragma once

#include <memory>

#include "server/http.h"
#include "server/service.h"

namespace lathe {

void embed(Service&, const Json& body, std::shared_ptr<HttpExchange>);
// Documents by the cosine of their vectors to the query's.
void rerank(Service&, const Json& body, std::shared_ptr<HttpExchange>);

}  // namespace lathe
