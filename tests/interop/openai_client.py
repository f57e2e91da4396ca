"""What OpenAI's own client must be able to do with a Lathe server. Usage: openai_client.py URL KEY"""

import json
import sys
import urllib.request

import openai

url, key = sys.argv[1:]
client = openai.OpenAI(base_url=url + "/v1", api_key=key, max_retries=0)
messages = [{"role": "user", "content": "Tell me of the sea."}]


def refuses(error, call):
    try:
        call()
    except error as e:
        return e
    raise AssertionError(f"expected {error.__name__}")


class requests:  # without another package
    @staticmethod
    def post(to, body):
        request = urllib.request.Request(to, json.dumps(body).encode(), {"X-Api-Key": key})
        return json.load(urllib.request.urlopen(request))


assert [m.id for m in client.models.list()] == ["builtin"]

whole = client.chat.completions.create(model="builtin", messages=messages, max_tokens=16, temperature=0)
assert whole.choices[0].finish_reason == "length" and whole.usage.completion_tokens == 16
text, usage = "", None
stream = client.chat.completions.create(
    model="builtin", messages=messages, max_tokens=16, temperature=0, stream=True,
    stream_options={"include_usage": True})
for chunk in stream:
    if chunk.choices:
        text += chunk.choices[0].delta.content or ""
    usage = chunk.usage or usage
assert text == whole.choices[0].message.content, (text, whole)
assert usage == whole.usage

seeded = [client.chat.completions.create(model="builtin", messages=messages, max_tokens=16, seed=5, n=2) for _ in "ab"]
assert [c.message.content for c in seeded[0].choices] == [c.message.content for c in seeded[1].choices]

scored = client.chat.completions.create(
    model="builtin", messages=messages, max_tokens=4, logprobs=True, top_logprobs=3)
assert len(scored.choices[0].logprobs.content) == 4
assert all(len(t.top_logprobs) == 3 and t.logprob <= 0 for t in scored.choices[0].logprobs.content)

best = client.completions.create(model="builtin", prompt="Once", max_tokens=8, n=2, best_of=4)
assert len(best.choices) == 2 and best.usage.completion_tokens <= 32
refuses(openai.BadRequestError, lambda: client.completions.create(model="builtin", prompt="a", suffix="b"))

plain = client.completions.create(model="builtin", prompt=["Once", "The ship"], max_tokens=8, stop=["."], logprobs=2)
assert len(plain.choices) == 2 and len(plain.choices[0].logprobs.tokens) <= 8

# How likely two texts are, as lm-evaluation-harness asks and reads.
ids = [requests.post(url + "/tokenize", {"prompt": text})["tokens"] for text in ("The ship at sea", "A")]
for want, choice in zip(ids, client.completions.create(model="builtin", prompt=ids, max_tokens=1, logprobs=1, echo=True,
                                                       temperature=0).choices):
    columns = choice.logprobs
    assert len(columns.tokens) == len(want) + 1 == len(columns.token_logprobs) == len(columns.top_logprobs)
    assert columns.token_logprobs[0] is None and all(x <= 0 for x in columns.token_logprobs[1:-1])
    assert all(own <= max(top.values()) for own, top in zip(columns.token_logprobs[1:], columns.top_logprobs[1:]))
only = client.completions.create(model="builtin", prompt="Once", max_tokens=4, extra_body={"allowed_token_ids": ids[1]})
assert only.choices[0].text.strip() and set(only.choices[0].text) <= {"A", " "}, only

# Structured output, whole and streamed. (White space is what a small model writes most.)
spaces = {str(t): -100 for t in range(4096)
          if (text := requests.post(url + "/detokenize", {"tokens": [t]})["prompt"]) and not text.strip()}
schema = {"type": "object", "properties": {"name": {"enum": ["Ann", "Bob"]}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
          "required": ["name", "age"], "additionalProperties": False}
shaped = {"type": "json_schema", "json_schema": {"name": "person", "strict": True, "schema": schema}}
person = client.chat.completions.create(model="builtin", messages=messages, max_tokens=100, seed=1,
                                        logit_bias=spaces, response_format=shaped)
assert json.loads(person.choices[0].message.content)["name"] in ("Ann", "Bob"), person
assert client.chat.completions.create(
    model="builtin", messages=messages, extra_body={"guided_regex": "[0-9]{4}"}).choices[0].message.content.isdigit()
refuses(openai.BadRequestError, lambda: client.chat.completions.create(
    model="builtin", messages=messages,
    response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"unheardOf": 1}}}))

# Tools.
tools = [{"type": "function", "function": {"name": "weather", "parameters": {
    "type": "object", "properties": {"city": {"enum": ["Oslo", "Rome"]}}, "required": ["city"],
    "additionalProperties": False}}}]
asked = dict(model="builtin", messages=messages, tools=tools, tool_choice="required", parallel_tool_calls=False,
             max_tokens=100, seed=2, logit_bias=spaces)
call = client.chat.completions.create(**asked).choices[0]
assert call.finish_reason == "tool_calls" and call.message.content is None
call = call.message.tool_calls[0]
assert call.function.name == "weather" and json.loads(call.function.arguments)["city"] in ("Oslo", "Rome")
name, arguments = "", ""
for chunk in client.chat.completions.create(stream=True, **asked):
    for part in chunk.choices[0].delta.tool_calls or []:
        name += part.function.name or ""
        arguments += part.function.arguments or ""
assert (name, arguments) == ("weather", call.function.arguments), (name, arguments)
client.chat.completions.create(model="builtin", max_tokens=4, messages=messages + [
    {"role": "assistant", "content": None, "tool_calls": [call.model_dump()]},
    {"role": "tool", "tool_call_id": call.id, "content": "It rains."}])

assert "temperature" in str(refuses(
    openai.BadRequestError,
    lambda: client.chat.completions.create(model="builtin", messages=messages, temperature=-1)))
refuses(openai.NotFoundError, lambda: client.chat.completions.create(model="gpt-9", messages=messages))
refuses(openai.AuthenticationError,
        lambda: openai.OpenAI(base_url=url + "/v1", api_key="wrong").models.list())

# Tools that the model may call, or a text of its form.
for seed in range(3):
    either = client.chat.completions.create(
        model="builtin", messages=messages, tools=tools, response_format=shaped, max_tokens=100, seed=seed,
        parallel_tool_calls=False, logit_bias=spaces).choices[0].message
    found = json.loads(either.tool_calls[0].function.arguments if either.tool_calls else either.content)
    assert found.get("city") in ("Oslo", "Rome") or found.get("name") in ("Ann", "Bob"), either

# Responses, whole and streamed.
whole = client.responses.create(model="builtin", input="Tell me of the sea.", max_output_tokens=16, temperature=0)
assert whole.status == "incomplete" and whole.usage.output_tokens == 16 and whole.output_text
text, last = "", None
for event in client.responses.create(model="builtin", input="Tell me of the sea.", max_output_tokens=16,
                                     temperature=0, stream=True):
    if event.type == "response.output_text.delta":
        text += event.delta
    last = event
assert last.type == "response.incomplete" and last.response.output_text == text == whole.output_text
call = client.responses.create(model="builtin", input="Rain?", tool_choice="required", parallel_tool_calls=False, tools=[
    {"type": "function", "name": "weather", "parameters": tools[0]["function"]["parameters"], "strict": True}])
assert call.output[0].type == "function_call" and json.loads(call.output[0].arguments)["city"] in ("Oslo", "Rome")

# Embeddings: the client asks for base64 by itself.
vectors = client.embeddings.create(model="builtin", input=["The ship at sea", "The ship at sea", "a"]).data
assert vectors[0].embedding == vectors[1].embedding != vectors[2].embedding
assert abs(sum(x * x for x in vectors[0].embedding) - 1) < 1e-4
listed = client.embeddings.create(model="builtin", input="a", encoding_format="float").data[0].embedding
assert listed == vectors[2].embedding

# A client that stops reading: the next request must not wait for the abandoned one.
abandoned = client.chat.completions.create(model="builtin", messages=messages, max_tokens=900, stream=True)
next(iter(abandoned))
abandoned.close()
client.chat.completions.create(model="builtin", messages=messages, max_tokens=1)
print("openai", openai.__version__, "ok")
