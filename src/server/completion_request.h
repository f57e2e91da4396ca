// What a request for a text says besides its prompt.
#pragma once

#include "server/fields.h"
#include "server/service.h"

namespace lathe {

inline constexpr int64_t most_logprobs = 20;  // of one token

// OpenAI's fields and vLLM's beyond them: sampling, lengths, stops, logprobs, structured output. ApiError
// naming the field.
Request completion_request(const Service&, const Fields&, bool chat);

// What requests of all shapes name and mean alike, into one that completion_request() reads.
void copy_sampling(const Fields& from, Json& to);

void require_model(const Service&, const Fields&);                  // "model" is the server's, or absent
void truncate_prompt(std::vector<int32_t>& prompt, const Fields&);  // to its last truncate_prompt_tokens

}  // namespace lathe
