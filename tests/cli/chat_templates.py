"""Chat templates of our own in the manner of the common families, and what the assistant's turns are in what they render.

TEMPLATES: name -> (template, function from messages to the texts of the turns, in order, what stands before each). A turn is what the model
writes: what follows the generation prompt, with the token that ends it. None: the template marks its turns itself, and transformers tells them.
"""
CHATML = """{% for message in messages %}
{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}"""

MARKED = """{%- for message in messages %}
    {%- if message['role'] == 'assistant' %}
        {{- '<|im_start|>assistant\n' }}
        {%- generation %}
            {{- message['content'] + '<|im_end|>' }}
        {%- endgeneration %}
        {{- '\n' }}
    {%- else %}
        {{- '<|im_start|>' + message['role'] + '\n' + message['content'] | trim + '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""

# A marked turn on lines of its own: trim_blocks and lstrip_blocks decide the white space.
MARKED_LINES = """{% for message in messages %}
{% if message['role'] == 'assistant' %}
  {% generation %}
A: {{ message['content'] }}
  {% endgeneration %}
{% else %}
Q: {{ message['content'] }}
{% endif %}
{% endfor %}
"""

LLAMA3 = """{{- bos_token }}
{%- set ns = namespace(first=true) %}
{%- for message in messages %}
    {{- '<|start_header_id|>' ~ message.role ~ '<|end_header_id|>\n\n' ~ message.content | trim ~ '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}"""

# The system's message moves into the last question, and there is no generation prompt.
MISTRAL = """{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content'] %}
    {%- set rest = messages[1:] %}
{%- else %}
    {%- set rest = messages %}
{%- endif %}
{{- bos_token }}
{%- for message in rest %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('user and assistant must take turns') }}
    {%- endif %}
    {%- if message['role'] == 'user' %}
        {%- if system is defined and loop.index0 >= rest | length - 2 %}
            {{- '[INST] ' + system + '\n\n' + message['content'] + '[/INST]' }}
        {%- else %}
            {{- '[INST] ' + message['content'] + '[/INST]' }}
        {%- endif %}
    {%- else %}
        {{- ' ' + message['content'] + eos_token }}
    {%- endif %}
{%- endfor %}"""

GEMMA = """{{ bos_token }}{% for message in messages %}{% if message['role'] == 'assistant' %}{% set role = 'model' %}{% else %}\
{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"""

# The prompt opens a thought, a finished turn shows none; a turn's end is the end of text.
DEEPSEEK = """{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}{{ '<|User|>' + message['content'] }}\
{% elif message['role'] == 'assistant' %}{% set content = message['content'] %}{% if '</think>' in content %}\
{% set content = content.split('</think>')[-1] %}{% endif %}{{ '<|Assistant|>' + content + '<|end_of_sentence|>' }}\
{% else %}{{ message['content'] }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|Assistant|><think>\\n' }}{% endif %}"""

# Thoughts stay in the turns after the last question and go from those before it.
QWEN3 = """{%- set ns = namespace(last=0) %}
{%- for message in messages %}
    {%- if message.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == 'assistant' %}
        {%- set content = message.content %}
        {%- set thought = '' %}
        {%- if '</think>' in content %}
            {%- set thought = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\n') %}
        {%- endif %}
        {{- '<|im_start|>assistant\n' }}
        {%- if loop.index0 > ns.last %}
            {{- '<think>\n' + thought.strip('\n') + '\n</think>\n\n' }}
        {%- endif %}
        {{- content + '<|im_end|>\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}"""

# One token ends a turn, another the conversation.
GPT_OSS = """{%- for message in messages %}
    {%- if message.role == 'assistant' %}
        {{- '<|start|>assistant<|channel|>final<|message|>' + message.content }}
        {{- '<|return|>' if loop.last and not add_generation_prompt else '<|end|>' }}
    {%- else %}
        {{- '<|start|>' + message.role + '<|message|>' + message.content + '<|end|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"""

# The whole conversation has an end of its own.
PHI = """{% for message in messages %}{{ '<|start|>' + message['role'] + '\n' + message['content'] + '<|end|>\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|start|>assistant\n' }}{% else %}{{ eos_token }}{% endif %}"""

# A generation prompt whether it is asked for or not.
ALWAYS = """{% for message in messages %}{{ '<|start|>' + message['role'] + message['content'] + '<|end|>' }}{% endfor %}<|start|>assistant"""

# What comes after a turn depends on what it says: nothing is certain.
ECHO = """{% for message in messages %}{{ '<' + message.role + '>' + message.content + messages[-1].content | length | string }}{% endfor %}"""

SPECIALS = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<start_of_turn>",
            "<end_of_turn>", "<|User|>", "<|Assistant|>", "<|end_of_sentence|>", "<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|return|>"]


def answers(messages):
    return [m["content"] for m in messages if m["role"] == "assistant"]


def qwen3_turns(messages):
    last = max((i for i, m in enumerate(messages) if m["role"] == "user"), default=0)
    out = []
    for i, message in enumerate(messages):
        if message["role"] == "assistant":
            thought, _, said = message["content"].rpartition("</think>")
            thought = thought.split("<think>")[-1].strip("\n")
            said = said.lstrip("\n") if thought else message["content"]
            out.append((f"<think>\n{thought}\n</think>\n\n" if i > last else "") + said + "<|im_end|>\n")
    return out


def gpt_oss_turns(messages):
    turns = ["<|channel|>final<|message|>" + a + "<|end|>" for a in answers(messages)]
    if messages[-1]["role"] == "assistant":
        turns[-1] = turns[-1].replace("<|end|>", "<|return|>")
    return turns


def phi_turns(messages):
    turns = [a + "<|end|>\n" for a in answers(messages)]
    if messages[-1]["role"] == "assistant":
        turns[-1] += "</s>"
    return turns


TEMPLATES = {
    "chatml": (CHATML, lambda m: [a + "<|im_end|>\n" for a in answers(m)], "<|im_start|>assistant\n"),
    "marked": (MARKED, None, ""),
    "marked_lines": (MARKED_LINES, None, ""),
    "llama3": (LLAMA3, lambda m: [a.strip() + "<|eot_id|>" for a in answers(m)], "assistant<|end_header_id|>\n\n"),
    "mistral": (MISTRAL, lambda m: [" " + a + "</s>" for a in answers(m)], "[/INST]"),
    "gemma": (GEMMA, lambda m: [a.strip() + "<end_of_turn>\n" for a in answers(m)], "<start_of_turn>model\n"),
    "deepseek": (DEEPSEEK, lambda m: [a.split("</think>")[-1] + "<|end_of_sentence|>" for a in answers(m)], "<|Assistant|>"),
    "qwen3": (QWEN3, qwen3_turns, "<|im_start|>assistant\n"),
    "phi": (PHI, phi_turns, "<|start|>assistant\n"),
    "gpt_oss": (GPT_OSS, gpt_oss_turns, "<|start|>assistant"),
}

CONVERSATIONS = [
    [("user", "What is 2 + 2?"), ("assistant", "4")],
    [("system", "Be kind."), ("user", "Hello"), ("assistant", "Hi there!"), ("user", "Who are you?"), ("assistant", "A model.\nOf words.")],
    [("user", " spaces  around "), ("assistant", "  more\n\nof them "), ("user", "\n"), ("assistant", "ünï 日本語 🙂"), ("user", "x"),
     ("assistant", "x"), ("user", "unanswered")],
    [("user", "think"), ("assistant", "<think>\nso far\n</think>\n\nfirst"), ("user", "again"), ("assistant", "<think>\nonce more\n</think>\n\nsecond")],
    [("system", "long system message"), ("user", "a"), ("assistant", "a"), ("user", "a"), ("assistant", "a")],
    [("user", "quince"), ("assistant", "zebra quince <|im_end|> [INST] zebra")],
]
