#include "engine/bench/html_page.h"

#include "base/text.h"

namespace sheaf {
namespace {

constexpr const char* kStyle = R"(
:root { color-scheme: light dark; --page: #ffffff; --text: #1c1e21; --soft: #667; --line: #dcdfe4; --panel: #f6f7f9; --good: #0a7a3d;
  --bad: #c02222; --s0: #16181b; --s1: #8a8f98; --s2: #0072b2; --s3: #d55e00; --s4: #009e73; --s5: #b4478a; --s6: #a67c00; --s7: #6f4bc4; }
@media (prefers-color-scheme: dark) {
  :root { --page: #14161a; --text: #e6e8eb; --soft: #9aa0aa; --line: #333842; --panel: #1c1f25; --good: #4cc67f; --bad: #ff7b72;
    --s0: #f0f2f5; --s1: #8a909b; --s2: #56b4e9; --s3: #ff9447; --s4: #2fd0a0; --s5: #ee9bcb; --s6: #e5bd55; --s7: #b49bf2; } }
body { background: var(--page); color: var(--text); font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1260px; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: .3rem; } h2 { font-size: 1.2rem; margin-top: 2.4rem; border-top: 1px solid var(--line); padding-top: 1rem; }
p { max-width: 60rem; } .soft, figcaption { color: var(--soft); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .88rem; margin: .8rem 0; }
th, td { padding: .25rem .6rem .25rem 0; text-align: left; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--soft); font-weight: 600; }
tr.good td:last-child { color: var(--good); } tr.bad td:last-child { color: var(--bad); font-weight: 600; }
tr.predicted td, tr.missing td { color: var(--soft); font-style: italic; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(340px, 1fr)); gap: .6rem 1.2rem; }
figure { margin: 0; } figcaption { font-size: .88rem; font-weight: 600; } svg { width: 100%; height: auto; }
svg text { fill: var(--soft); font-size: 11px; } .grid { stroke: var(--line); } .axis { stroke: var(--soft); }
.limit { stroke: var(--bad); stroke-dasharray: 2 3; stroke-width: 1.4; }
.curve { fill: none; stroke: currentColor; stroke-width: 1.5; stroke-linejoin: round; } .thick { stroke-width: 4; opacity: .35; }
.dashed { stroke-dasharray: 5 4; } .mark { fill: currentColor; } .hollow { fill: var(--page); stroke: currentColor; stroke-width: 1.5; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; font-size: .88rem; margin: .4rem 0; }
.legend i { display: inline-block; width: 1.6rem; border-top: 3px solid currentColor; vertical-align: middle; margin-right: .4rem; }
.legend i.broken { border-top-style: dashed; } .legend span span { color: var(--text); }
pre { background: var(--panel); padding: .8rem; overflow-x: auto; font-size: .82rem; } summary { color: var(--soft); cursor: pointer; }
.s0 { color: var(--s0); } .s1 { color: var(--s1); } .s2 { color: var(--s2); } .s3 { color: var(--s3); } .s4 { color: var(--s4); }
.s5 { color: var(--s5); } .s6 { color: var(--s6); } .s7 { color: var(--s7); }
)";

std::string html_row(const std::vector<std::string>& cells, const char* tag) {
  std::string out;
  for (const std::string& cell : cells) out += fmt::format("<{0}>{1}</{0}>", tag, html_escape(cell));
  return out;
}

}    // namespace

std::string html_escape(const std::string& text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string html_page(const std::string& title, const std::string& body) {
  return fmt::format(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\n"
      "<title>{0}</title>\n<style>{1}</style></head>\n<body><h1>{0}</h1>\n{2}</body></html>\n",
      html_escape(title), kStyle, body);
}

std::string html_legend(const std::vector<LegendEntry>& entries) {
  std::string out = "<div class=\"legend\">";
  for (const LegendEntry& entry : entries)
    out += fmt::format("<span class=\"s{}\"><i{}></i><span>{}</span></span>", entry.color, entry.dashed ? " class=\"broken\"" : "",
                       html_escape(entry.name));
  return out + "</div>\n";
}

std::string text_of(const ReportTable& t) {
  std::vector<std::vector<std::string>> rows = {t.header};
  rows.insert(rows.end(), t.rows.begin(), t.rows.end());
  return table(rows);
}

std::string markdown_of(const ReportTable& t) {
  const auto line = [](const std::vector<std::string>& cells) {
    std::string out = "|";
    for (std::string cell : cells) {
      for (std::size_t at = 0; (at = cell.find('|', at)) != std::string::npos; at += 2) cell.insert(at, "\\");
      out += " " + cell + " |";
    }
    return out + "\n";
  };
  std::string out = line(t.header) + "|";
  for (std::size_t i = 0; i < t.header.size(); ++i) out += "---|";
  out += "\n";
  for (const auto& row : t.rows) out += line(row);
  return out;
}

std::string html_of(const ReportTable& t) {
  std::string out = "<div class=\"scroll\"><table><thead><tr>" + html_row(t.header, "th") + "</tr></thead>\n<tbody>\n";
  for (std::size_t i = 0; i < t.rows.size(); ++i) out += fmt::format("<tr class=\"{}\">{}</tr>\n", t.kinds[i], html_row(t.rows[i], "td"));
  return out + "</tbody></table></div>\n";
}

}    // namespace sheaf
