"""What OpenAI's own client must be able to do with a Lathe server. Usage: openai_client.py URL KEY"""

import sys

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

plain = client.completions.create(model="builtin", prompt=["Once", "The ship"], max_tokens=8, stop=["."], logprobs=2)
assert len(plain.choices) == 2 and len(plain.choices[0].logprobs.tokens) <= 8

assert "temperature" in str(refuses(
    openai.BadRequestError,
    lambda: client.chat.completions.create(model="builtin", messages=messages, temperature=-1)))
refuses(openai.NotFoundError, lambda: client.chat.completions.create(model="gpt-9", messages=messages))
refuses(openai.AuthenticationError,
        lambda: openai.OpenAI(base_url=url + "/v1", api_key="wrong").models.list())

# A client that stops reading: the next request must not wait for the abandoned one.
abandoned = client.chat.completions.create(model="builtin", messages=messages, max_tokens=900, stream=True)
next(iter(abandoned))
abandoned.close()
client.chat.completions.create(model="builtin", messages=messages, max_tokens=1)
print("openai", openai.__version__, "ok")
