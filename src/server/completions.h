// /v1/completions: a request's JSON in, its answer or its stream of chunks out. Shapes:
// https://platform.openai.com/docs/api-reference/completions; fields beyond OpenAI's are vLLM's.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "server/fields.h"
#include "server/http.h"
#include "server/service.h"

namespace lathe {

// Submits and returns; the answer is written as events come. ApiError (or InputError, Busy of the engine)
// before anything was submitted.
void complete(Service&, const Json& body, std::shared_ptr<HttpExchange>);

// The field: a string, a list of strings, a list of tokens, or a list of lists of tokens.
std::vector<std::vector<int32_t>> parse_prompts(const Service&, const Fields&,
                                                const std::string& name = "prompt");

}  // namespace lathe
