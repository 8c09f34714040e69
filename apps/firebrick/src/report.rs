//! `report.html`: one self-contained page about one run.

use std::path::Path;

use firebrick_nlp::{baseline::Baseline, task::argmax, train::Trained};
use firebrick_train::run;

/// Examples of each kind that are shown.
const SHOWN: usize = 10;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a}\
 table{border-collapse:collapse;margin:.5rem 0 1.5rem;width:100%}caption{text-align:left;color:#444;padding-bottom:.3rem}\
 th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #ccc;vertical-align:top}\
 h1{font-size:1.6rem;margin-bottom:.2rem}h2{font-size:1.2rem;margin-top:2rem}\
 svg{max-width:100%;height:auto}pre{background:#f4f4f4;padding:1rem;overflow-x:auto;font-size:.85rem}\
 .n{text-align:right;font-variant-numeric:tabular-nums}code{background:#f4f4f4;padding:0 .2rem}";

/// The page of a finished run, with the baseline that was trained beside it.
pub fn html(dir: &Path, trained: &Trained, baseline: &Baseline) -> anyhow::Result<String> {
    let recipe = std::fs::read_to_string(dir.join("recipe.toml"))?;
    let accuracy = |c: &firebrick_metrics::confusion::Confusion| {
        c.accuracy().map_or("-".into(), |a| format!("{:.2} %", 100.0 * a))
    };
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>{name}</title><style>{STYLE}</style><h1>Run {name}</h1>\
         <p>Every number on this page was measured in this run.</p>",
        name = escape(&dir.file_name().unwrap_or_default().to_string_lossy()),
    );
    page += &table(
        "Accuracy on the validation rows, which also chose the weights",
        &["model", "accuracy", "how"],
        &[
            vec![
                "this model".into(),
                accuracy(&trained.valid.confusion),
                format!("{} tokens in {:.0} s", trained.tokens, trained.seconds),
            ],
            vec![
                "TF-IDF + logistic regression".into(),
                accuracy(&baseline.confusion),
                format!("{} features in {:.1} s", baseline.features, baseline.seconds),
            ],
        ],
    );
    let loss = run::curve(dir, "loss")?;
    let valid = run::curve(dir, "valid/loss")?;
    page += "<h2>Curves</h2>";
    page += &chart("loss", &[("training", &smooth(&loss)), ("validation", &valid)]);
    page += &chart("validation accuracy", &[("accuracy", &run::curve(dir, "valid/accuracy")?)]);

    page += "<h2>Confusion matrix</h2>";
    let labels = &trained.corpus.labels;
    let rows: Vec<Vec<String>> = trained
        .valid
        .confusion
        .rows()
        .zip(labels)
        .map(|(row, label)| {
            let cells = row.iter().map(ToString::to_string);
            std::iter::once(format!("true {label}")).chain(cells).collect()
        })
        .collect();
    let predicted: Vec<String> = labels.iter().map(|label| format!("predicted {label}")).collect();
    let heads: Vec<&str> =
        std::iter::once("").chain(predicted.iter().map(String::as_str)).collect();
    page += &table("Rows by true and predicted label", &heads, &rows);

    page += &examples("Wrong, the surest first", trained, false);
    page += &examples("Right, the surest first", trained, true);

    page += "<h2>Data</h2>";
    let mut notes = vec![];
    for (part, ledger) in &trained.corpus.ledgers {
        for (reason, count) in ledger.counts() {
            notes.push(vec![part.clone(), format!("{reason:?}").to_lowercase(), count.to_string()]);
        }
    }
    page += &table(
        "Rows that were dropped (data.ledger.jsonl says why of each)",
        &["part", "reason", "rows"],
        &notes,
    );
    page += &format!("<h2>Recipe</h2><pre>{}</pre>", escape(&recipe));
    page += "<h2>Next</h2><ul>\
        <li><code>firebrick recipe cp sst2 mine.toml</code>: train on a CSV of your own</li>\
        <li><code>firebrick train sst2-minilm</code>: fine-tune a pretrained encoder</li></ul></html>";
    Ok(page)
}

fn examples(title: &str, trained: &Trained, right: bool) -> String {
    let labels = &trained.corpus.labels;
    let known = trained.corpus.valid.iter().filter_map(|row| {
        Some((row, labels.iter().position(|label| Some(label) == row.label.as_ref())?))
    });
    let mut found: Vec<(f32, Vec<String>)> = known
        .zip(&trained.valid.scores)
        .filter_map(|((row, truth), scores)| {
            let best = argmax(scores);
            ((best == truth) == right).then(|| {
                let text = row.text.chars().take(300).collect();
                (
                    scores[best],
                    vec![
                        labels[truth].clone(),
                        labels[best].clone(),
                        format!("{:.3}", scores[best]),
                        text,
                    ],
                )
            })
        })
        .collect();
    found.sort_by(|a, b| b.0.total_cmp(&a.0));
    let rows: Vec<Vec<String>> = found.into_iter().take(SHOWN).map(|(_, row)| row).collect();
    format!(
        "<h2>{title}</h2>{}",
        table("Validation rows", &["true", "predicted", "probability", "text"], &rows)
    )
}

/// Mean over a window of a fiftieth of the curve, so that the trend shows.
fn smooth(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let window = (points.len() / 50).max(1);
    let mean = |part: &[(f64, f64)]| {
        let n = part.len() as f64;
        (part.iter().map(|p| p.0).sum::<f64>() / n, part.iter().map(|p| p.1).sum::<f64>() / n)
    };
    points.chunks(window).map(mean).collect()
}

/// A line chart as inline SVG.
fn chart(title: &str, curves: &[(&str, &[(f64, f64)])]) -> String {
    const COLOURS: [&str; 2] = ["#1f5fa8", "#b3401f"];
    let (width, height, left, top, right, bottom) = (640.0, 280.0, 60.0, 30.0, 20.0, 40.0);
    let all: Vec<(f64, f64)> =
        curves.iter().flat_map(|(_, p)| p.iter().copied()).filter(|p| p.1.is_finite()).collect();
    if all.is_empty() {
        return String::new();
    }
    let range = |values: Vec<f64>| {
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        (low, if high > low { high } else { low + 1.0 })
    };
    let (x0, x1) = range(all.iter().map(|p| p.0).collect());
    let (y0, y1) = range(all.iter().map(|p| p.1).collect());
    let x = |v: f64| left + (v - x0) / (x1 - x0) * (width - left - right);
    let y = |v: f64| height - bottom - (v - y0) / (y1 - y0) * (height - top - bottom);
    let mut svg = format!(
        "<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{title}\" font-size=\"12\" \
         font-family=\"system-ui,sans-serif\"><text x=\"{left}\" y=\"18\" font-weight=\"bold\">{title}</text>"
    );
    for i in 0..=4 {
        let (vx, vy) = (x0 + (x1 - x0) * f64::from(i) / 4.0, y0 + (y1 - y0) * f64::from(i) / 4.0);
        svg += &format!(
            "<line x1=\"{left}\" x2=\"{}\" y1=\"{py:.1}\" y2=\"{py:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{vy:.3}</text>\
             <text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{vx:.0}</text>",
            width - right,
            left - 6.0,
            y(vy) + 4.0,
            x(vx),
            height - bottom + 18.0,
            py = y(vy),
        );
    }
    svg += &format!(
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">step</text>",
        width / 2.0,
        height - 6.0
    );
    for (i, (name, points)) in curves.iter().enumerate() {
        let colour = COLOURS[i % 2];
        let path: Vec<String> = points
            .iter()
            .filter(|p| p.1.is_finite())
            .map(|p| format!("{:.1},{:.1}", x(p.0), y(p.1)))
            .collect();
        svg += &format!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\
             <text x=\"{}\" y=\"18\" fill=\"{colour}\" text-anchor=\"end\">{name}</text>",
            path.join(" "),
            width - right - 90.0 * i as f64,
        );
    }
    svg + "</svg>"
}

fn table(caption: &str, heads: &[&str], rows: &[Vec<String>]) -> String {
    let head: String =
        heads.iter().map(|h| format!("<th scope=\"col\">{}</th>", escape(h))).collect();
    let cells = |row: &Vec<String>| {
        row.iter().map(|c| format!("<td>{}</td>", escape(c))).collect::<String>()
    };
    let body: String = rows.iter().map(|row| format!("<tr>{}</tr>", cells(row))).collect();
    format!("<table><caption>{}</caption><tr>{head}</tr>{body}</table>", escape(caption))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_in_texts_stays_text() {
        let page = table("a", &["b"], &[vec!["<script>\"&".into()]]);
        assert!(page.contains("<td>&lt;script&gt;&quot;&amp;</td>"), "{page}");
    }

    #[test]
    fn charts_survive_empty_and_broken_curves() {
        assert_eq!(chart("loss", &[("a", &[])]), "");
        let svg = chart("loss", &[("a", &[(1.0, f64::NAN), (2.0, 3.0)])]);
        assert!(svg.contains("<polyline") && !svg.contains("NaN"), "{svg}");
    }
}
