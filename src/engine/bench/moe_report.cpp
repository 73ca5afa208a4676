// What `sheaf bench moe` says of its measurements: lines, Markdown, JSON, HTML.
#include <algorithm>
#include <set>

#include "base/text.h"
#include "engine/bench/chart.h"
#include "engine/bench/html_page.h"
#include "engine/bench/moe.h"
#include "runtime/device_info.h"

namespace sheaf {
namespace {

bool is_predicted(const MoeRow& row) { return row.kind == MoeRow::Kind::predicted; }
bool has_plan(const MoeRow& row) { return row.planned.total() > 0; }

std::string count_text(double count) { return count > 0 ? human_count(count) : "-"; }
std::string bytes_text(std::int64_t bytes) { return bytes > 0 ? human_bytes(static_cast<double>(bytes)) : "-"; }
std::string kind_text(const MoeRow& row) { return row.note.empty() ? name(row.kind) : fmt::format("{}: {}", name(row.kind), row.note); }

ReportTable table_of(const MoeTable& t) {
  ReportTable table{.header = {t.size.name, "mesh", "degrees", "step", "tokens/s", "of a rank", "efficiency", "memory of a rank", "planned",
                               "a rank sends", "how"}};
  for (const MoeRow& row : t.rows) {
    const auto marked = [&](const std::string& text) { return is_predicted(row) && text != "-" ? "~" + text : text; };
    const bool degrees = row.kind != MoeRow::Kind::impossible;
    table.add({fmt::format("{} rank{}", row.mesh.ranks, row.mesh.ranks == 1 ? "" : "s"), row.words, degrees ? degrees_text(row.mesh) : "-",
               marked(row.seconds > 0 ? fmt::format("{:.1f} ms", row.seconds * 1e3) : "-"), marked(count_text(row.rate())),
               marked(count_text(row.rank_rate())), marked(row.efficiency > 0 ? fmt::format("{:.0f} %", 100 * row.efficiency) : "-"),
               bytes_text(row.peak_bytes), bytes_text(row.planned.total()),
               has_plan(row) ? human_bytes(static_cast<double>(row.sent_bytes)) : "-", kind_text(row)},
              is_predicted(row)                      ? "predicted"
              : row.kind == MoeRow::Kind::failed     ? "bad"
              : row.kind == MoeRow::Kind::impossible ? "missing"
                                                     : "");
  }
  return table;
}

std::string about(const MoeTable& t) {
  const MoeConfig& m = *t.size.model.moe;
  return fmt::format("{}: {} parameters, {} of them for a token; {} layers, {} experts of {} channels, {} for a token",
                     t.size.model.model_type, count_text(static_cast<double>(t.parameters)), count_text(t.active_parameters),
                     t.size.model.layers.size(), m.experts, m.intermediate, m.top_k);
}

std::string settings_text(const MoeResult& r) {
  const MoeOptions& o = r.options;
  return fmt::format("{}; {}; {} row{} of {} random tokens a rank in a step, {} timed steps after {}; LibTorch {}", r.device,
                     o.bf16 ? "bf16" : "fp32", o.rows, o.rows == 1 ? "" : "s", o.seq_len, o.steps, kWarmupSteps, libtorch_version());
}

// ---- JSON

Json json_of(const MoeRow& row) {
  const auto known = [](double v) { return v > 0 ? Json(v) : Json(nullptr); };
  Json out = {{"ranks", row.mesh.ranks}, {"mesh", row.words}, {"kind", name(row.kind)}};
  if (!row.note.empty()) out["note"] = row.note;
  if (row.kind == MoeRow::Kind::impossible) return out;
  out["degrees"] = degrees_json(row.mesh);
  out["tokens_per_step"] = row.tokens;
  out["step_ms"] = known(row.seconds * 1e3), out["tokens_per_s"] = known(row.rate());
  out["tokens_per_s_per_rank"] = known(row.rank_rate()), out["efficiency"] = known(row.efficiency);
  out["peak_bytes"] = row.peak_bytes > 0 ? Json(row.peak_bytes) : Json(nullptr);
  out["planned_bytes"] = has_plan(row) ? Json(row.planned.total()) : Json(nullptr);
  out["planned_memory"] = {{"parameters", row.planned.parameters},
                           {"gradients", row.planned.gradients},
                           {"optimizer", row.planned.optimizer},
                           {"activations", row.planned.activations}};
  out["sent_bytes"] = row.sent_bytes;
  if (is_predicted(row)) return out;
  out["steps_ms"] = Json::array();
  for (const double s : row.step_seconds) out["steps_ms"].push_back(s * 1e3);
  return out;
}

Json json_of(const MoeResult& r) {
  const MoeOptions& o = r.options;
  Json out = {{"benchmark", "moe"},     {"interrupted", r.interrupted},   {"device", r.device},
              {"devices", r.devices},   {"libtorch", libtorch_version()}, {"dtype", o.bf16 ? "bf16" : "fp32"},
              {"steps", o.steps},       {"warmup_steps", kWarmupSteps},   {"seq_len", o.seq_len},
              {"rows_per_rank", o.rows}};
  out["threads_per_rank"] = r.threads > 0 ? Json(r.threads) : Json(nullptr);
  out["link_bytes_per_s"] = o.link > 0 ? Json(o.link) : Json(nullptr);
  out["notes"] = moe_notes(r);
  out["sizes"] = Json::array();
  for (const MoeTable& table : r.tables) {
    Json entry = {{"size", table.size.name},        {"model_type", table.size.model.model_type},
                  {"parameters", table.parameters}, {"active_parameters", table.active_parameters},
                  {"config", table.size.config},    {"rows", Json::array()}};
    for (const MoeRow& row : table.rows) entry["rows"].push_back(json_of(row));
    out["sizes"].push_back(entry);
  }
  return out;
}

// ---- HTML

// A curve a mesh, the one rank at the start of each.
template <class Number>
std::string chart_of(const MoeResult& result, const MoeTable& table, const char* title, const char* label, bool log, const Number& of_row) {
  Chart chart{.title = title, .x = {.label = "ranks", .log = true}, .y = {.label = label, .log = log}};
  if (!log) chart.y.low = 0;
  std::set<double> ranks;
  for (std::size_t i = 0; i < result.options.meshes.size(); ++i) {
    ChartSeries s{.name = result.options.meshes[i].text, .color = 2 + static_cast<int>(i % 6), .points = true};
    for (const MoeRow& row : table.rows) {
      const double y = of_row(row);
      if (y <= 0 || (row.mesh.ranks > 1 && row.words != s.name)) continue;
      s.x.push_back(static_cast<double>(row.mesh.ranks)), s.y.push_back(y), s.hollow.push_back(is_predicted(row));
      ranks.insert(s.x.back());
    }
    if (!s.x.empty()) chart.series.push_back(std::move(s));
  }
  if (chart.series.empty()) return "";
  chart.x.ticks.assign(ranks.begin(), ranks.end());
  return svg(chart);
}

std::string html_of(const MoeResult& result, const MoeTable& table) {
  std::string out =
      fmt::format("<h2>{}</h2>\n<p>{}.</p>\n", html_escape(table.size.name), html_escape(about(table))) + html_of(table_of(table));
  std::vector<LegendEntry> legend;
  for (std::size_t i = 0; i < result.options.meshes.size(); ++i)
    legend.push_back({result.options.meshes[i].text, 2 + static_cast<int>(i % 6), false});
  out += html_legend(legend) + "<p class=\"soft\">Filled marks are measured, hollow ones predicted.</p>\n<div class=\"charts\">\n";
  out += chart_of(result, table, "tokens a second of a rank", "tokens/s", false, [](const MoeRow& row) { return row.rank_rate(); });
  out += chart_of(result, table, "tokens a second of all ranks", "tokens/s", true, [](const MoeRow& row) { return row.rate(); });
  out += chart_of(result, table, "scaling efficiency, per cent", "%", false, [](const MoeRow& row) { return 100 * row.efficiency; });
  const auto bytes = [](const MoeRow& row) { return static_cast<double>(row.peak_bytes > 0 ? row.peak_bytes : row.planned.total()); };
  const bool large = std::any_of(table.rows.begin(), table.rows.end(), [&](const MoeRow& row) { return bytes(row) >= 1 << 30; });
  out += chart_of(result, table, "memory of a rank", large ? "GiB" : "MiB", true,
                  [&](const MoeRow& row) { return bytes(row) / (large ? 1 << 30 : 1 << 20); });
  return out + "</div>\n<details><summary>config.json</summary><pre>" + html_escape(table.size.config.dump(2)) + "</pre></details>\n";
}

std::string html_of(const MoeResult& result) {
  std::string body = fmt::format("<p class=\"soft\">{}.</p>\n<ul>\n", html_escape(settings_text(result)));
  for (const std::string& note : moe_notes(result)) body += fmt::format("<li>{}</li>\n", html_escape(note));
  body += "</ul>\n";
  for (const MoeTable& table : result.tables) body += html_of(result, table);
  return html_page("Sheaf: speed and memory of mixtures of experts", body);
}

}    // namespace

std::string moe_text(const MoeTable& table) { return about(table) + "\n" + text_of(table_of(table)); }

std::vector<std::string> moe_notes(const MoeResult& result) {
  const MoeOptions& o = result.options;
  std::vector<std::string> notes = {
      "every rank brings as many tokens on every mesh; step: the median of the timed ones; efficiency: tokens/s of a rank over those of "
      "the smallest number of ranks that was measured"};
  if (result.threads > 0)
    notes.push_back(fmt::format("on the CPU ranks are threads of one machine: each has {} thread{} for its ops, whatever their number",
                                result.threads, result.threads == 1 ? "" : "s"));
  notes.emplace_back(
      "memory of a rank: the largest that a run took. planned: what `sheaf plan` says of it, and all that is known of a predicted row");
  if (o.link > 0)
    notes.push_back(
        fmt::format("predicted times (~): the step of the same mesh on the most ranks that were measured, else of one rank, less what it "
                    "sends, and then "
                    "all that `sheaf plan` says a rank sends; at {:.1f} GB/s (--link) and beside no computation",
                    o.link * 1e-9));
  else
    notes.emplace_back("times of predicted rows are left out: --link says at how many GB/s a rank sends, and then they are estimated");
  notes.emplace_back("tokens are random, so every expert gets about as many");
  return notes;
}

void write_moe(const MoeResult& result) {
  std::string markdown = fmt::format("# Speed and memory of mixtures of experts\n\n{}.\n\n", settings_text(result));
  for (const std::string& note : moe_notes(result)) markdown += "- " + note + "\n";
  for (const MoeTable& table : result.tables)
    markdown += fmt::format("\n## {}\n\n{}.\n\n{}", table.size.name, about(table), markdown_of(table_of(table)));
  write_file_atomically(result.options.output + "/results.json", json_of(result).dump(1) + "\n");
  write_file_atomically(result.options.output + "/table.md", markdown);
  write_file_atomically(result.options.output + "/index.html", html_of(result));
}

}    // namespace sheaf
