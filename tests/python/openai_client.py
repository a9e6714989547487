"""Stock clients of text generation against a running edge.

openai_client.py protocol  HTTP GRPC MODEL TOKENIZER   what holds for every model
openai_client.py failures  HTTP GRPC MODEL             prompts that the test's generator fails on
openai_client.py reference HTTP GRPC MODEL FILE        answers equal those in a file

The openai package and tritonclient, unchanged. Prints a line for each check, and exits with 1 at the
first that fails. GET /alive of the test's server says how many generations run.
"""

import json
import queue
import sys
import time
import urllib.request

import numpy as np
import openai
import tritonclient.grpc as triton
from tokenizers import Tokenizer

MODE, HTTP, GRPC, MODEL = sys.argv[1:5]
client = openai.OpenAI(base_url=f"http://{HTTP}/v1", api_key="none", max_retries=0, timeout=60)
PROMPT = "the quick brown fox"
CHAT = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": [{"type": "text", "text": " what is "}, {"type": "text", "text": "split? "}]},
]


def check(what, ok, found=""):
    if not ok:
        sys.exit(f"FAILED {what}: {found}")
    print(f"ok {what}", flush=True)


def complete(**arguments):
    defaults = {"model": MODEL, "prompt": PROMPT, "max_tokens": 40, "temperature": 0}
    return client.completions.create(**(defaults | arguments))


def chat(**arguments):
    defaults = {"model": MODEL, "messages": CHAT, "max_tokens": 40, "temperature": 0}
    return client.chat.completions.create(**(defaults | arguments))


def gathered(stream, text_of):
    """Texts and finish reasons of a stream's choices, and its usage."""
    texts, reasons, usage, chunks = {}, {}, None, []
    for chunk in stream:
        chunks.append(chunk)
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] = texts.get(choice.index, "") + (text_of(choice) or "")
            if choice.finish_reason:
                reasons[choice.index] = choice.finish_reason
    return texts, reasons, usage, chunks


def same_streamed(what, call, text_of, text_of_delta, **arguments):
    whole = call(**arguments)
    options = {"include_usage": True}
    texts, reasons, usage, chunks = gathered(
        call(stream=True, stream_options=options, **arguments), text_of_delta
    )
    check(f"{what}: text", texts == {c.index: text_of(c) for c in whole.choices}, (texts, whole))
    check(f"{what}: reasons", reasons == {c.index: c.finish_reason for c in whole.choices}, reasons)
    check(f"{what}: usage", usage == whole.usage, (usage, whole.usage))
    check(f"{what}: one id", len({chunk.id for chunk in chunks}) == 1, chunks)
    check(f"{what}: usage comes last", not chunks[-1].choices and chunks[-1].usage, chunks[-1])
    return whole, chunks


def completions(tokenizer):
    text, delta = (lambda c: c.text), (lambda c: c.text)
    whole, chunks = same_streamed("completion", complete, text, delta)
    check("completion: objects", whole.object == chunks[0].object == "text_completion", whole)
    check("completion: id", whole.id.startswith("cmpl-") and whole.model == MODEL, whole)
    ids = tokenizer.encode(PROMPT).ids
    check("completion: prompt tokens", whole.usage.prompt_tokens == len(ids), whole.usage)
    check("completion: many chunks", len(chunks) > 10, len(chunks))
    check("completion: from token ids", complete(prompt=ids).choices[0].text == whole.choices[0].text)
    two = complete(prompt=[PROMPT, "an edge"])
    check("two prompts", two.choices[0].text == whole.choices[0].text and len(two.choices) == 2, two)
    listed = complete(prompt=[ids, tokenizer.encode("an edge").ids])
    check("two prompts of ids", [c.text for c in listed.choices] == [c.text for c in two.choices])
    short = complete(max_tokens=3)
    check("length", short.choices[0].finish_reason == "length" and short.usage.completion_tokens == 3)
    standard = client.completions.create(model=MODEL, prompt=PROMPT, temperature=0)
    check("16 tokens by default", standard.usage.completion_tokens <= 16, standard.usage)
    echoed = complete(echo=True).choices[0].text
    check("echo", echoed == PROMPT + whole.choices[0].text, echoed)
    _, echoes, *_ = same_streamed("echo", complete, text, delta, echo=True, prompt=ids)
    drawn = {"temperature": 1.0, "n": 3, "seed": 5, "top_p": 0.9, "extra_body": {"top_k": 20}}
    sampled, _ = same_streamed("n=3 with a seed", complete, text, delta, **drawn)
    check("three answers", len({c.text for c in sampled.choices}) == 3, sampled)
    counted = complete(logprobs=1)
    inside = counted.choices[0].logprobs
    check("logprobs", len(inside.tokens) == counted.usage.completion_tokens == len(inside.token_logprobs))
    check("logprobs: none above 0", max(inside.token_logprobs) <= 0, inside)
    check("logprobs: top", inside.top_logprobs[0] == {inside.tokens[0]: inside.token_logprobs[0]}, inside)


def chats():
    text, delta = (lambda c: c.message.content), (lambda c: c.delta.content)
    whole, chunks = same_streamed("chat", chat, text, delta)
    check("chat: objects", whole.object == "chat.completion", whole)
    check("chat: chunks", chunks[0].object == "chat.completion.chunk", chunks[0])
    check("chat: role", chunks[0].choices[0].delta.role == "assistant", chunks[0])
    check("chat: message", whole.choices[0].message.role == "assistant", whole)
    newer = chat(max_tokens=None, max_completion_tokens=5)
    check("max_completion_tokens", newer.usage.completion_tokens <= 5, newer.usage)
    same_streamed("chat, n=2", chat, text, delta, n=2, temperature=0.8, seed=3)
    probable = chat(logprobs=True, top_logprobs=1).choices[0].logprobs.content
    check("chat: logprobs", probable[0].top_logprobs[0].logprob == probable[0].logprob, probable[0])
    longest = chat(max_tokens=None)
    check("as many tokens as there is room for", longest.choices[0].finish_reason, longest)


def first_end(text, stops):
    """Where the answer ends: before the stop string that is complete first."""
    ends = [(text.find(s) + len(s), -len(s)) for s in stops if s in text]
    end, length = min(ends)
    return end + length


def stop_strings():
    text = complete(max_tokens=60).choices[0].text
    middle = len(text) // 2
    for stops in [text[middle : middle + 1], text[middle : middle + 6]], [text[-4:]], ["never in there"]:
        found = [s for s in stops if s in text]
        expected = text[: first_end(text, found)] if found else text
        same, _ = same_streamed(
            f"stop {stops}", complete, lambda c: c.text, lambda c: c.text, max_tokens=60, stop=stops
        )
        check("nothing of the stop string", same.choices[0].text == expected, same)
        if found:
            check("reason stop", same.choices[0].finish_reason == "stop", same)
    one = complete(max_tokens=60, stop=text[5:8], logprobs=0)
    inside = one.choices[0].logprobs
    joined = "".join(inside.tokens)
    covers = joined.startswith(one.choices[0].text) or "\ufffd" in joined
    check("no token behind the stop", covers and len(inside.tokens) <= one.usage.completion_tokens, inside)


def refused(what, kind, param, call):
    try:
        call()
    except openai.APIStatusError as error:
        body = error.body
        fits = isinstance(error, kind) and body["param"] == param and body["message"] and body["type"]
        check(f"refuses {what}", fits, (error, body))
        return error
    check(f"refuses {what}", False, "it was answered")


def mistakes():
    bad = openai.BadRequestError
    missing = refused("another model", openai.NotFoundError, "model", lambda: complete(model="boat"))
    check("code of a missing model", missing.body["code"] == "model_not_found", missing.body)
    for what, param, arguments in [
        ("temperature 3", "temperature", {"temperature": 3}),
        ("a text as temperature", "temperature", {"temperature": "hot"}),
        ("top_p 0", "top_p", {"top_p": 0}),
        ("n 0", "n", {"n": 0}),
        ("presence_penalty", "presence_penalty", {"presence_penalty": 0.5}),
        ("frequency_penalty", "frequency_penalty", {"frequency_penalty": -1}),
        ("logit_bias", "logit_bias", {"logit_bias": {"5": 1}}),
        ("five stop strings", "stop", {"stop": list("abcde")}),
        ("an empty stop string", "stop", {"stop": ""}),
        ("suffix", "suffix", {"suffix": "end"}),
        ("best_of", "best_of", {"best_of": 3}),
        ("logprobs of other tokens", "logprobs", {"logprobs": 5}),
        ("an unknown parameter", "typo", {"extra_body": {"typo": 1}}),
        ("no prompt", "prompt", {"prompt": None}),
        ("a mixed prompt", "prompt", {"prompt": ["a", 1]}),
        ("max_tokens 0", "max_tokens", {"max_tokens": 0}),
        ("an empty prompt", None, {"prompt": ""}),
        ("ids outside the vocabulary", None, {"prompt": [2**40], "echo": True}),
    ]:
        refused(what, bad, param, lambda: complete(**arguments))
        refused(f"{what}, streamed", bad, param, lambda: complete(stream=True, **arguments))
    for what, param, arguments in [
        ("no messages", "messages", {"messages": []}),
        ("an image", "messages[0].content", {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}),
        ("another role", "messages[0].role", {"messages": [{"role": "tool", "content": "x", "tool_call_id": "1"}]}),
        ("tools", "tools", {"tools": [{"type": "function", "function": {"name": "f"}}]}),
        ("JSON mode", "response_format", {"response_format": {"type": "json_object"}}),
        ("top_logprobs alone", "top_logprobs", {"top_logprobs": 1}),
    ]:
        refused(what, bad, param, lambda: chat(**arguments))
    for what, arguments in [
        ("a prompt longer than the context", {"prompt": PROMPT * 5000}),
        ("ids longer than the context", {"prompt": [5] * 5000}),
        ("an answer longer than the context", {"max_tokens": 100_000}),
    ]:
        error = refused(what, bad, None, lambda: complete(**arguments))
        check(f"code of {what}", error.code == "context_length_exceeded", error.body)
    error = refused("a chat longer than the context", bad, None, lambda: chat(
        messages=[{"role": "user", "content": PROMPT * 5000}]
    ))
    check("code of a long chat", error.code == "context_length_exceeded", error.body)
    harmless = complete(user="me", presence_penalty=0, best_of=1, seed=1)
    check("neutral values are accepted", harmless.choices, harmless)
    request = urllib.request.Request(f"http://{HTTP}/v1/completions", b"{", method="POST")
    try:
        urllib.request.urlopen(request)
    except urllib.error.HTTPError as error:
        check("broken JSON is 400", error.code == 400 and json.load(error)["error"]["message"])


def models():
    listed = client.models.list().data
    check("models", [m.id for m in listed] == [MODEL] and listed[0].object == "model", listed)
    check("a model", client.models.retrieve(MODEL).id == MODEL)
    refused("an unknown model", openai.NotFoundError, "model", lambda: client.models.retrieve("boat"))


class TritonStream:
    """tritonclient's stream, with its answers in a queue."""

    def __enter__(self):
        self.answers = queue.Queue()
        self.client = triton.InferenceServerClient(GRPC)
        self.client.start_stream(lambda result, error: self.answers.put((result, error)))
        return self

    def __exit__(self, *_):
        self.client.stop_stream()

    def ask(self, inputs, request_id="1", model=MODEL, **parameters):
        self.client.async_stream_infer(model, inputs, request_id=request_id, parameters=parameters)

    def answer(self):
        return self.answers.get(timeout=60)

    def all(self):
        """Every response up to the last one."""
        found = []
        while True:
            result, error = self.answer()
            if error:
                return found, error
            found.append(result)
            if parameter(result, "triton_final_response"):
                return found, None


def parameter(result, name):
    found = result.get_response().parameters[name]
    return getattr(found, found.WhichOneof("parameter_choice"))


def text_input(text):
    tensor = triton.InferInput("text_input", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([text.encode()], dtype=object))
    return [tensor]


def id_input(ids):
    tensor = triton.InferInput("input_ids", [1, len(ids)], "INT64")
    tensor.set_data_from_numpy(np.array([ids], dtype=np.int64))
    return [tensor]


def text_of(results):
    return b"".join(r.as_numpy("text_output")[0] for r in results).decode()


def tokens_of(results):
    return np.concatenate([r.as_numpy("token") for r in results]).tolist()


def model_stream_infer(tokenizer):
    expected = complete().choices[0]
    with TritonStream() as stream:
        stream.ask(text_input(PROMPT), "first", max_tokens=40, temperature=0)
        results, error = stream.all()
        check("stream: no error", error is None, error)
        check("stream: the same text", text_of(results) == expected.text, text_of(results))
        check("stream: reason", parameter(results[-1], "finish_reason") == expected.finish_reason)
        check("stream: ids of requests", {r.get_response().id for r in results} == {"first"})
        check("stream: many responses", len(results) > 10, len(results))
        check("stream: logprobs", all(r.as_numpy("logprob").shape == r.as_numpy("token").shape for r in results))
        tokens = tokens_of(results)

        stream.ask(id_input(tokenizer.encode(PROMPT).ids), "second", max_tokens=40, stream=False)
        whole, error = stream.all()
        check("stream: one response from ids", error is None and len(whole) == 1, error)
        check("stream: the same from ids", tokens_of(whole) == tokens, tokens_of(whole))
        check("stream: the same text from ids", text_of(whole) == expected.text)

        stop = expected.text[5:8]
        stream.ask(text_input(PROMPT), max_tokens=40, stop=json.dumps([stop, "never"]))
        results, error = stream.all()
        cut = expected.text[: expected.text.index(stop)]
        check("stream: stop", error is None and text_of(results) == cut, (error, text_of(results)))
        check("stream: reason stop", parameter(results[-1], "finish_reason") == "stop")

        asked = [triton.InferRequestedOutput("token")]
        stream.client.async_stream_infer(MODEL, text_input(PROMPT), outputs=asked, parameters={"max_tokens": 2})
        results, error = stream.all()
        names = {o.name for r in results for o in r.get_response().outputs}
        check("stream: only the outputs asked for", names == {"token"}, names)

        for what, inputs, parameters in [
            ("another model", text_input(PROMPT), {"model": "boat"}),
            ("an unknown parameter", text_input(PROMPT), {"max_token": 3}),
            ("temperature -1", text_input(PROMPT), {"temperature": -1.0}),
            ("two inputs", text_input(PROMPT) + id_input([1]), {}),
            ("no room", text_input(PROMPT), {"max_tokens": 100_000}),
            ("an empty prompt", text_input(""), {}),
        ]:
            stream.ask(inputs, **parameters)
            _, error = stream.answer()
            check(f"stream refuses {what}", error is not None and error.message(), error)
        stream.ask(text_input(PROMPT), "last", max_tokens=40)
        results, error = stream.all()
        check("stream: goes on after errors", text_of(results) == expected.text)


def alive():
    with urllib.request.urlopen(f"http://{HTTP}/alive") as answer:
        return int(answer.read())


def until_none(what):
    for _ in range(600):
        if alive() == 0:
            break
        time.sleep(0.05)
    check(f"{what} ends the generation", alive() == 0, alive())


def cancellation():
    stream = complete(stream=True, max_tokens=900, prompt=[5, 6], n=2)
    for _ in range(3):
        next(stream)
    check("two generations run", alive() == 2, alive())
    stream.close()
    until_none("closing a stream")
    try:
        client.with_options(timeout=0.3).completions.create(
            model=MODEL, prompt=[5, 6], max_tokens=900, temperature=0
        )
        check("the request takes longer than its client waits", False)
    except openai.APITimeoutError:
        until_none("a client that hangs up")
    with TritonStream() as stream:
        stream.ask(id_input([5, 6]), max_tokens=900)
        stream.answer()
        check("a generation runs", alive() == 1, alive())
        stream.client.stop_stream(cancel_requests=True)
    until_none("cancelling a gRPC stream")


def failures():
    for first, kind, code in [
        (390, openai.RateLimitError, 429),
        (391, openai.InternalServerError, 503),
        (392, openai.InternalServerError, 504),
    ]:
        for streamed in (False, True):
            error = refused(f"with {code}", kind, None, lambda: complete(prompt=[first], stream=streamed))
            check(f"status {code}", error.status_code == code, error)
    refused("a late failure with 503", openai.InternalServerError, None, lambda: complete(prompt=[393]))
    chunks, broken = [], None
    try:
        for chunk in complete(prompt=[393], stream=True):
            chunks.append(chunk)
    except openai.APIError as error:
        broken = error
    check("a late failure breaks the stream off", chunks and broken, (chunks, broken))
    check("its error says why", "prompt 393 fails" in str(broken.message), broken)
    with TritonStream() as stream:
        for first in (390, 391, 393):
            stream.ask(id_input([first]), max_tokens=9)
            _, error = stream.all()
            check(f"stream: failure {first}", f"prompt {first} fails" in error.message(), error)
    until_none("a failure")
    cancellation()


def reference(file):
    """Greedy answers of transformers for the same weights."""
    for case in json.load(open(file)):
        arguments = {"max_tokens": case["max_tokens"]}
        if "messages" in case:
            call, arguments["messages"] = chat, case["messages"]
            text, delta = (lambda c: c.message.content), (lambda c: c.delta.content)
        else:
            call, arguments["prompt"] = complete, case["prompt"]
            text, delta = (lambda c: c.text), (lambda c: c.text)
        whole, _ = same_streamed(f"{arguments}", call, text, delta, **arguments)
        choice = whole.choices[0]
        check("as transformers", text(choice) == case["text"], (text(choice), case["text"]))
        check("reason", choice.finish_reason == case["finish_reason"], (choice, case))
        tokens = whole.usage.completion_tokens
        check("tokens", tokens == len(case["ids"]), (tokens, case["ids"]))
        with TritonStream() as stream:
            stream.ask(id_input(case["prompt_ids"]), max_tokens=case["max_tokens"])
            results, error = stream.all()
            check("ids as transformers", tokens_of(results) == case["ids"], (error, tokens_of(results)))


def main():
    if MODE == "protocol":
        tokenizer = Tokenizer.from_file(sys.argv[5])
        models()
        completions(tokenizer)
        chats()
        stop_strings()
        mistakes()
        model_stream_infer(tokenizer)
    elif MODE == "failures":
        failures()
    else:
        reference(sys.argv[5])
    print("all checks passed")


main()
