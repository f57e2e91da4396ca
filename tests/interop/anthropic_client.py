"""What Anthropic's own client must be able to do with a Lathe server. Usage: anthropic_client.py URL KEY"""

import sys

import anthropic

url, key = sys.argv[1:]
client = anthropic.Anthropic(base_url=url, api_key=key, max_retries=0)
# extra_body: recent versions of the package have no parameter of that name any more, the API has.
asked = dict(model="builtin", max_tokens=16, extra_body={"temperature": 0}, system="Be brief.",
             messages=[{"role": "user", "content": "Tell me of the sea."}])

whole = client.messages.create(**asked)
assert whole.stop_reason == "max_tokens" and whole.usage.output_tokens == 16
with client.messages.stream(**asked) as stream:
    text = "".join(stream.text_stream)
    final = stream.get_final_message()
assert text == whole.content[0].text == final.content[0].text and final.stop_reason == "max_tokens"
assert client.messages.count_tokens(
    model="builtin", system=asked["system"], messages=asked["messages"]).input_tokens > 4

tools = [{"name": "weather", "input_schema": {
    "type": "object", "properties": {"city": {"enum": ["Oslo", "Rome"]}}, "required": ["city"],
    "additionalProperties": False}}]
asked |= dict(max_tokens=100, tools=tools, tool_choice={"type": "any", "disable_parallel_tool_use": True})
call = client.messages.create(**asked)
assert call.stop_reason == "tool_use" and call.content[0].input["city"] in ("Oslo", "Rome")
with client.messages.stream(**asked) as stream:
    streamed = stream.get_final_message()
assert streamed.content[0].input == call.content[0].input and streamed.stop_reason == "tool_use"
client.messages.create(**asked | dict(max_tokens=2, tool_choice={"type": "auto"}, messages=asked["messages"] + [
    {"role": "assistant", "content": call.content},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.content[0].id, "content": "It rains."}]}]))

for error, change in ((anthropic.BadRequestError, {"extra_body": {"temperature": -1}}), (anthropic.NotFoundError, {"model": "x"})):
    try:
        client.messages.create(**asked | change)
        raise AssertionError(f"expected {error.__name__}")
    except error:
        pass
print("anthropic", anthropic.__version__, "ok")
