// What `sheaf bench convergence` says of its runs: lines, Markdown, JSON, HTML.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/text.h"
#include "engine/bench/chart.h"
#include "engine/bench/convergence.h"
#include "engine/bench/html_page.h"
#include "runtime/device_info.h"

namespace sheaf {
namespace {

std::string difference_text(double difference) { return std::isnan(difference) ? "not finite" : fmt::format("{:.1e}", difference); }

std::string verdict(const ConvergenceRun& run) {
  if (run.run.end == RunEnd::failed) return "FAILED";
  if (run.run.end == RunEnd::interrupted) return fmt::format("interrupted after update {}", run.loss.size());
  return !run.compared ? "-" : run.passed ? "pass" : "FAIL";
}
std::string kind(const ConvergenceRun& run) {
  return run.run.end == RunEnd::failed || (run.compared && !run.passed) ? "bad" : run.passed ? "good" : "";
}

ReportTable table_of(const ConvergenceFamily& family) {
  ReportTable table{.header = {family.model.family, "ranks", "mesh", "loss", "loss, first 20", "norm, first 20", "loss, later",
                               "norm, later", "time", "result"}};
  for (const ConvergenceRun& run : family.runs) {
    const bool first = &run == &family.runs.front(), has_later = std::ssize(run.loss) > kFirstUpdates;
    const auto difference = [&](double d, bool there) { return first || !there || run.loss.empty() ? "-" : difference_text(d); };
    table.add({run.name, std::to_string(run.mesh.ranks), degrees_text(run.mesh),
               run.loss.empty() ? "-" : fmt::format("{:.4f} → {:.4f}", run.loss.front(), run.loss.back()), difference(run.first_loss, true),
               difference(run.first_norm, true), difference(run.later_loss, has_later), difference(run.later_norm, has_later),
               human_time(run.run.seconds), verdict(run)},
              kind(run));
  }
  return table;
}

std::vector<std::string> errors_of(const ConvergenceFamily& family) {
  std::vector<std::string> lines;
  for (const ConvergenceRun& run : family.runs)
    if (run.run.end == RunEnd::failed) lines.push_back(fmt::format("{}: {}", run.name, run.run.error));
  return lines;
}

// A row a family, a column a mesh: the larger of the two differences in the first updates.
ReportTable summary_of(const ConvergenceResult& result) {
  ReportTable table{.header = {"family"}};
  for (const ConvergenceRun& run : result.families.front().runs)
    if (&run != &result.families.front().runs.front()) table.header.push_back(run.name);
  for (const ConvergenceFamily& family : result.families) {
    std::vector<std::string> row = {family.model.family};
    for (const ConvergenceRun& run : family.runs) {
      if (&run == &family.runs.front()) continue;
      row.push_back(run.run.end == RunEnd::failed ? "failed"
                    : run.loss.empty()            ? "-"
                                                  : difference_text(std::max(run.first_loss, run.first_norm)));
    }
    const bool failed = std::any_of(family.runs.begin(), family.runs.end(), [](const auto& r) { return kind(r) == "bad"; });
    const bool whole = std::all_of(family.runs.begin(), family.runs.end(), [](const auto& r) { return r.run.end != RunEnd::interrupted; });
    row.resize(table.header.size(), "-");
    row.push_back(failed ? "FAIL" : whole ? "pass" : "interrupted");
    table.add(row, failed ? "bad" : whole ? "good" : "");
  }
  table.header.emplace_back("result");
  return table;
}

// ---- JSON

Json numbers(const std::vector<double>& values) {
  Json out = Json::array();
  for (const double v : values) out.push_back(std::isfinite(v) ? Json(v) : Json(nullptr));
  return out;
}

Json json_of(const ConvergenceRun& run) {
  Json out = {{"id", run.id},
              {"name", run.name},
              {"ranks", run.mesh.ranks},
              {"mesh", degrees_json(run.mesh)},
              {"rows_reversed", run.rows_reversed},
              {"end", name(run.run.end)}};
  if (!run.run.error.empty()) out["error"] = run.run.error;
  out["seconds"] = run.run.seconds;
  const auto number = [](double v) { return std::isfinite(v) ? Json(v) : Json(nullptr); };
  out["first_updates"] = {{"loss_difference", number(run.first_loss)}, {"grad_norm_difference", number(run.first_norm)}};
  out["later_updates"] = {{"loss_difference", number(run.later_loss)}, {"grad_norm_difference", number(run.later_norm)}};
  out["passed"] = run.compared ? Json(run.passed) : Json(nullptr);
  out["loss"] = numbers(run.loss), out["grad_norm"] = numbers(run.grad_norm);
  out["loss_difference"] = numbers(run.loss_difference), out["grad_norm_difference"] = numbers(run.norm_difference);
  if (run.load.empty()) return out;
  out["other_load_at"] = run.other_load_at ? Json(run.other_load_at) : Json(nullptr);
  Json& load = out["load"] = {{"max_over_mean", Json::array()}, {"entropy", Json::array()}, {"dead", Json::array()}};
  for (const LoadPoint& point : run.load)
    load["max_over_mean"].push_back(point.max_over_mean), load["entropy"].push_back(point.entropy), load["dead"].push_back(point.dead);
  return out;
}

Json json_of(const ConvergenceResult& result) {
  const ConvergenceOptions& o = result.options;
  Json out = {{"benchmark", "convergence"},
              {"passed", result.passed()},
              {"interrupted", result.interrupted},
              {"compared", result.num_compared()},
              {"within_tolerance", result.num_passed()},
              {"tolerance", kTolerance},
              {"first_updates", kFirstUpdates},
              {"device", result.device},
              {"libtorch", libtorch_version()},
              {"steps", o.steps},
              {"seq_len", o.seq_len},
              {"train_batch_size", result.batch},
              {"micro_batches", result.micro_batches},
              {"data", {{"path", o.data}, {"tokens", result.tokens}, {"rows", result.rows}}},
              {"families", Json::array()}};
  for (const ConvergenceFamily& family : result.families) {
    Json entry = {{"family", family.model.family}, {"parameters", family.parameters}, {"config", family.config}, {"runs", Json::array()}};
    for (const ConvergenceRun& run : family.runs) entry["runs"].push_back(json_of(run));
    out["families"].push_back(entry);
  }
  return out;
}

// ---- words

std::string settings_text(const ConvergenceResult& r) {
  const ConvergenceOptions& o = r.options;
  return fmt::format(
      "{} updates of {} rows of {} tokens in {} micro-batches, the same in every run; fp32, AdamW, on {}; LibTorch {}. Data: {}, {} "
      "tokens, one a byte.",
      o.steps, r.batch, o.seq_len, r.micro_batches, r.device, libtorch_version(), o.data, human_count(static_cast<double>(r.tokens)));
}
std::string explanation() {
  return fmt::format(
      "Every run starts from the same weights and sees the same rows. Differences are relative to the unpartitioned run on one rank, the "
      "largest of the first {} updates "
      "and of those after them. A mesh passes if loss and gradient norm are within {:.0e} of it in the first {}. Later, rounding errors "
      "grow in any two runs that sum in "
      "different orders; 'one rank, other order' shows by how much in the same model on one rank, with the rows of every micro-batch in "
      "the reverse order.",
      kFirstUpdates, kTolerance, kFirstUpdates);
}

// ---- HTML

std::vector<double> updates(std::size_t count) {
  std::vector<double> x(count);
  std::iota(x.begin(), x.end(), 1.0);
  return x;
}

template <class Numbers>
Chart chart_of(const ConvergenceFamily& family, const char* title, bool with_first, const Numbers& of_run) {
  Chart chart{.title = title, .x = {.label = "update"}};
  for (std::size_t i = with_first ? 0 : 1; i < family.runs.size(); ++i) {
    const std::vector<double> y = of_run(family.runs[i]);
    if (!y.empty())
      chart.series.push_back({.name = family.runs[i].name,
                              .x = updates(y.size()),
                              .y = y,
                              .color = static_cast<int>(i),
                              .dashed = family.runs[i].rows_reversed,
                              .thick = i == 0});
  }
  return chart;
}

std::string difference_chart(const ConvergenceFamily& family, const char* title, std::vector<double> ConvergenceRun::*member) {
  Chart chart = chart_of(family, title, false, [&](const ConvergenceRun& r) { return r.*member; });
  double most = kTolerance;
  std::size_t count = 1;
  for (const ChartSeries& s : chart.series) {
    count = std::max(count, s.y.size());
    for (const double y : s.y) most = std::isfinite(y) ? std::max(most, y) : most;
  }
  chart.y = {.label = "relative difference", .log = true, .low = 1e-8, .high = 10 * most};    // runs may agree to the bit
  chart.limit = kTolerance, chart.until = static_cast<double>(std::min<std::size_t>(count, kFirstUpdates));
  return svg(chart);
}

template <class Numbers>
std::string load_chart(const ConvergenceFamily& family, const char* title, const Numbers& of_point) {
  Chart chart = chart_of(family, title, true, [&](const ConvergenceRun& r) {
    std::vector<double> y;
    for (const LoadPoint& point : r.load) y.push_back(of_point(point));
    return y;
  });
  return chart.series.empty() ? "" : svg(chart);
}

std::string html_of(const ConvergenceFamily& family) {
  std::string out = fmt::format("<h2 id=\"{0}\">{0}</h2>\n<p>{1} parameters: {2}.</p>\n", family.model.family,
                                human_count(static_cast<double>(family.parameters)), html_escape(family.model.shows));
  std::vector<LegendEntry> legend;
  for (std::size_t i = 0; i < family.runs.size(); ++i)
    legend.push_back({family.runs[i].name, static_cast<int>(i), family.runs[i].rows_reversed});
  out += html_of(table_of(family));
  for (const std::string& line : errors_of(family)) out += "<p>" + html_escape(line) + "</p>\n";
  out += html_legend(legend) + "<div class=\"charts\">\n";
  out += svg(chart_of(family, "loss, nats a token", true, [](const ConvergenceRun& r) { return r.loss; }));
  out += difference_chart(family, "loss: difference from one rank", &ConvergenceRun::loss_difference);
  out += svg(chart_of(family, "gradient norm, before clipping", true, [](const ConvergenceRun& r) { return r.grad_norm; }));
  out += difference_chart(family, "gradient norm: difference from one rank", &ConvergenceRun::norm_difference);
  out += load_chart(family, "tokens of the busiest expert over the mean, of the worst layer",
                    [](const LoadPoint& p) { return p.max_over_mean; });
  out += load_chart(family, "entropy of the experts' shares, 1 is even, of the worst layer", [](const LoadPoint& p) { return p.entropy; });
  out += load_chart(family, "experts without a token, all layers", [](const LoadPoint& p) { return p.dead; });
  return out + "</div>\n<details><summary>config.json</summary><pre>" + html_escape(family.config.dump(2)) + "</pre></details>\n";
}

std::string html_of(const ConvergenceResult& result) {
  std::string body = fmt::format("<p><strong>{}</strong></p>\n<p>{}</p>\n<p class=\"soft\">{}</p>\n",
                                 html_escape(convergence_verdict(result)), html_escape(explanation()), html_escape(settings_text(result)));
  body += "<p>The larger of both differences in the first updates:</p>\n" + html_of(summary_of(result));
  for (const ConvergenceFamily& family : result.families) body += html_of(family);
  return html_page("Sheaf: convergence of mixtures of experts on meshes", body);
}

}    // namespace

std::string convergence_text(const ConvergenceFamily& family) {
  std::string text = text_of(table_of(family));
  for (const std::string& line : errors_of(family)) text += line + "\n";
  return text;
}

std::string convergence_verdict(const ConvergenceResult& result) {
  std::string text = fmt::format("{} of {} runs on meshes within {:.0e} of one rank in the first {} updates", result.num_passed(),
                                 result.num_compared(), kTolerance, std::min(kFirstUpdates, result.options.steps));
  std::int64_t failed = 0;
  for (const ConvergenceFamily& family : result.families)
    failed += std::count_if(family.runs.begin(), family.runs.end(), [](const ConvergenceRun& r) { return r.run.end == RunEnd::failed; });
  if (failed) text += fmt::format("; {} run{} failed", failed, failed == 1 ? "" : "s");
  return text + (result.interrupted ? "; interrupted" : "");
}

void write_convergence(const ConvergenceResult& result) {
  const std::string& folder = result.options.output;
  std::string markdown = fmt::format("# Convergence of mixtures of experts on meshes\n\n{}.\n\n{}\n\n{}\n\n", convergence_verdict(result),
                                     explanation(), settings_text(result));
  markdown += markdown_of(summary_of(result));
  for (const ConvergenceFamily& family : result.families) {
    markdown += fmt::format("\n## {}\n\n{} parameters: {}.\n\n{}", family.model.family, human_count(static_cast<double>(family.parameters)),
                            family.model.shows, markdown_of(table_of(family)));
    for (const std::string& line : errors_of(family)) markdown += "\n" + line + "\n";
  }
  write_file_atomically(folder + "/results.json", json_of(result).dump(1) + "\n");
  write_file_atomically(folder + "/table.md", markdown);
  write_file_atomically(folder + "/index.html", html_of(result));
}

}    // namespace sheaf
