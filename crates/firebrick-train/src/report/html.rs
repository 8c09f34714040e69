//! The report page: sections in order of importance, figures and tables numbered.

use super::{
    Example, Picture, Report, base64, escape,
    parallel::{Trials, parallel_svg},
    plots::{STYLE, Size, chart, description, matrix, percent},
    shorten,
};

/// Longest text of an example that is shown whole, in characters.
const EXAMPLE_CHARS: usize = 400;

/// How many confusions the table beside the matrix lists.
const CONFUSIONS: usize = 10;

/// Says to the browser itself that nothing may be loaded or run.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'";

pub(super) fn page(report: &Report) -> String {
    let mut page = Page::default();
    page.comparison(&report.comparison);
    page.trials(report.trials.as_ref());
    page.curves(report);
    page.confusion(report.confusion.as_ref());
    page.examples(&report.wrong, &report.right);
    page.samples(&report.samples);
    page.pictures(&report.pictures);
    page.data(&report.data_notes);
    page.recipe(&report.recipe_toml);
    page.next_steps(&report.next_steps);

    let title = escape(&report.title);
    let version = env!("CARGO_PKG_VERSION");
    let css = include_str!("style.css");
    let head = format!(
        "<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
         <meta name=\"generator\" content=\"Firebrick {version}\">\n\
         <title>{title}</title>\n<style>{STYLE}\n{css}</style>",
    );
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\" class=\"fb\">\n<head>\n{head}\n</head>\n<body>\n\
         <header>\n<h1>{title}</h1>\n{subtitle}{verdict}{facts}{contents}</header>\n\
         <main>\n{body}</main>\n\
         <footer><p>Written by Firebrick {version}. \
         This file is complete in itself: no script, no network.</p></footer>\n\
         </body>\n</html>\n",
        subtitle = paragraph("subtitle", &report.subtitle),
        verdict = paragraph("verdict", &report.verdict),
        facts = facts(&report.facts),
        contents = page.contents(),
        body = page.body,
    )
}

fn paragraph(class: &str, text: &str) -> String {
    match text {
        "" => String::new(),
        _ => format!("<p class=\"{class}\"{}>{}</p>\n", lang(text), escape(text)),
    }
}

fn facts(facts: &[(String, String)]) -> String {
    if facts.is_empty() {
        return String::new();
    }
    let fact = |(name, value): &(String, String)| {
        format!("<div><dt>{}</dt><dd>{}</dd></div>\n", escape(name), escape(value))
    };
    let facts: String = facts.iter().map(fact).collect();
    format!("<dl class=\"facts\">\n{facts}</dl>\n")
}

/// ` lang="zh"` (or `ja`) for a text with such characters: browsers choose the letter forms by it.
fn lang(text: &str) -> &'static str {
    let any = |from: char, to: char| text.chars().any(|c| (from..=to).contains(&c));
    match () {
        _ if any('\u{3040}', '\u{30ff}') => " lang=\"ja\"",
        _ if any('\u{4e00}', '\u{9fff}') => " lang=\"zh\"",
        _ => "",
    }
}

/// The sections so far, and what they are numbered by.
#[derive(Default)]
struct Page {
    body: String,
    sections: Vec<&'static str>,
    figures: usize,
    tables: usize,
}

impl Page {
    fn section(&mut self, title: &'static str) {
        self.sections.push(title);
        let number = self.sections.len();
        self.body += &format!("<h2 id=\"s{number}\"><span>{number}</span> {title}</h2>\n");
    }

    fn contents(&self) -> String {
        if self.sections.len() < 2 {
            return String::new();
        }
        let item = |(index, title): (usize, &&str)| {
            format!("<li><a href=\"#s{}\">{title}</a></li>\n", index + 1)
        };
        let items: String = self.sections.iter().enumerate().map(item).collect();
        format!("<nav aria-label=\"Contents\"><ol>\n{items}</ol></nav>\n")
    }

    /// `caption`, `head` and `rows` are HTML; a cell of `head` names the column of the cells below it.
    fn table(&mut self, class: &str, caption: &str, head: &[&str], rows: &[Vec<String>]) {
        self.tables += 1;
        // Narrow screens lay rows out as blocks; the roles keep them a table to a screen reader.
        let heads: String = head
            .iter()
            .map(|name| format!("<th role=\"columnheader\" scope=\"col\">{name}</th>"))
            .collect();
        self.body += &format!(
            "<table role=\"table\" class=\"{class}\">\n<caption><b>Table {}.</b> {caption}</caption>\n\
             <thead role=\"rowgroup\"><tr role=\"row\">{heads}</tr></thead>\n<tbody role=\"rowgroup\">\n",
            self.tables
        );
        for row in rows {
            let cells = head.iter().zip(row).enumerate().map(|(index, (name, cell))| match index {
                0 => {
                    format!("<th role=\"rowheader\" scope=\"row\" data-head=\"{name}\">{cell}</th>")
                }
                _ => format!("<td role=\"cell\" data-head=\"{name}\">{cell}</td>"),
            });
            self.body += &format!("<tr role=\"row\">{}</tr>\n", cells.collect::<String>());
        }
        self.body += "</tbody>\n</table>\n";
    }

    fn comparison(&mut self, systems: &[(String, String, String)]) {
        if systems.is_empty() {
            return;
        }
        self.section("Comparison");
        let row = |(name, accuracy, detail): &(String, String, String)| {
            vec![escape(name), escape(accuracy), escape(detail)]
        };
        let rows: Vec<_> = systems.iter().map(row).collect();
        let caption = "This model and others on the same rows.";
        self.table("comparison", caption, &["System", "Score", "Detail"], &rows);
    }

    fn trials(&mut self, trials: Option<&Trials>) {
        let Some(trials) = trials else { return };
        self.section("Trials");
        self.figures += 1;
        self.body += &format!(
            "<figure>\n\
             <div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Trials\">{}</div>\n\
             <figcaption><b>Figure {}.</b> A line a trial. The thick one is the best; dashed ones were \
             stopped early.</figcaption>\n</figure>\n",
            parallel_svg("Trials", trials, false),
            self.figures,
        );
    }

    fn curves(&mut self, report: &Report) {
        if report.curves.is_empty() {
            return;
        }
        self.section("Training");
        for (title, x, y, curves) in &report.curves {
            self.figures += 1;
            let spoken = description(title, curves);
            let [wide, narrow] =
                [Size::WIDE, Size::NARROW].map(|size| chart(size, None, &spoken, x, y, curves));
            self.body += &format!(
                "<figure>\n<div class=\"wide\">{wide}</div>\n<div class=\"narrow\">{narrow}</div>\n\
                 <figcaption><b>Figure {}.</b> {}. \
                 The last value of each curve stands at its end.</figcaption>\n</figure>\n",
                self.figures,
                escape(title),
            );
        }
    }

    fn confusion(&mut self, confusion: Option<&(Vec<String>, Vec<Vec<u64>>)>) {
        let Some((labels, counts)) = confusion else { return };
        self.section("Confusions");
        self.figures += 1;
        self.body += &format!(
            "<figure>\n\
             <div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Confusion matrix\">{}</div>\n\
             <figcaption><b>Figure {}.</b> Rows of the data by true class (row) and predicted class (column). \
             Shades and percentages are shares of the row: blue is right, brown is wrong.</figcaption>\n\
             </figure>\n",
            matrix(labels, counts, false),
            self.figures,
        );
        let wrong = confusions(counts);
        if labels.len() < 3 || wrong.is_empty() {
            return; // the picture says it all
        }
        let caption = match wrong.len() {
            n if n > CONFUSIONS => format!("The {CONFUSIONS} most frequent of {n} confusions."),
            _ => "All confusions, the most frequent first.".to_owned(),
        };
        let name = |class: usize| match labels.get(class) {
            Some(label) => escape(label),
            None => format!("class {class}"),
        };
        let row = |miss: &Confusion| {
            let share = escape(&percent(miss.share));
            vec![name(miss.truth), name(miss.predicted), miss.count.to_string(), share]
        };
        let rows: Vec<_> = wrong.iter().take(CONFUSIONS).map(row).collect();
        self.table("confusions", &caption, &["True", "Predicted", "Rows", "Of the class"], &rows);
    }

    fn examples(&mut self, wrong: &[Example], right: &[Example]) {
        if wrong.is_empty() && right.is_empty() {
            return;
        }
        self.section("Examples");
        for (caption, examples) in
            [("Rows that the model got wrong.", wrong), ("Rows that the model got right.", right)]
        {
            if !examples.is_empty() {
                let rows: Vec<_> = examples.iter().map(example_row).collect();
                let head = ["Row", "Text", "True", "Predicted", "Confidence"];
                self.table("examples", caption, &head, &rows);
            }
        }
    }

    fn samples(&mut self, samples: &[(String, String)]) {
        if samples.is_empty() {
            return;
        }
        self.section("Samples");
        for (head, text) in samples {
            let (head, text) = (escape(head), escape(text));
            self.body += &format!(
                "<p class=\"sample\"><b>{head}</b></p>\n<pre tabindex=\"0\">{text}</pre>\n"
            );
        }
    }

    fn pictures(&mut self, pictures: &[Picture]) {
        if pictures.is_empty() {
            return;
        }
        self.section("Pictures");
        for picture in pictures {
            self.figures += 1;
            let caption = escape(&picture.caption);
            self.body += &format!(
                "<figure>\n<img class=\"picture\" alt=\"{caption}\" width=\"{}\" height=\"{}\" \
                 src=\"data:image/png;base64,{}\"/>\n\
                 <figcaption><b>Figure {}.</b> {caption}</figcaption>\n</figure>\n",
                picture.width,
                picture.height,
                base64(&picture.png),
                self.figures,
            );
        }
    }

    fn data(&mut self, notes: &[(String, String)]) {
        if notes.is_empty() {
            return;
        }
        self.section("Data");
        let rows: Vec<_> =
            notes.iter().map(|(what, found)| vec![escape(what), escape(found)]).collect();
        self.table("notes", "What was checked, and what was found.", &["Check", "Found"], &rows);
    }

    fn recipe(&mut self, toml: &str) {
        if toml.is_empty() {
            return;
        }
        self.section("Recipe");
        self.body += &format!(
            "<pre tabindex=\"0\" role=\"region\" aria-label=\"Recipe\"><code>{}</code></pre>\n",
            escape(toml)
        );
    }

    fn next_steps(&mut self, steps: &[(String, String)]) {
        if steps.is_empty() {
            return;
        }
        self.section("Next steps");
        self.body += "<ol class=\"steps\">\n";
        for (command, why) in steps {
            let (why, command) = (escape(why), escape(command));
            self.body += &format!("<li><p>{why}</p><pre><code>{command}</code></pre></li>\n");
        }
        self.body += "</ol>\n";
    }
}

/// How often rows of one class were taken for another.
struct Confusion {
    truth: usize,
    predicted: usize,
    count: u64,
    /// Of the rows of `truth`.
    share: f64,
}

/// Every confusion that occurred, the most frequent first.
fn confusions(counts: &[Vec<u64>]) -> Vec<Confusion> {
    let mut found = vec![];
    for (truth, row) in counts.iter().enumerate() {
        let all = row.iter().fold(0_u64, |sum, count| sum.saturating_add(*count));
        for (predicted, &count) in row.iter().enumerate() {
            if predicted != truth && count > 0 {
                found.push(Confusion { truth, predicted, count, share: count as f64 / all as f64 });
            }
        }
    }
    found.sort_by_key(|miss| std::cmp::Reverse(miss.count)); // stable: equal counts stay in class order
    found
}

fn example_row(example: &Example) -> Vec<String> {
    let text = &example.text;
    let length = text.chars().count();
    let shown = escape(&shorten(text, EXAMPLE_CHARS));
    let rest = match length > EXAMPLE_CHARS {
        true => format!(" <small>({length} characters)</small>"),
        false => String::new(),
    };
    vec![
        example.row.to_string(),
        format!("<span class=\"text\" dir=\"auto\"{}>{shown}</span>{rest}", lang(text)),
        format!("<bdi>{}</bdi>", escape(&example.truth)),
        format!("<bdi>{}</bdi>", escape(&example.predicted)),
        escape(&percent(example.confidence)),
    ]
}

#[cfg(test)]
mod tests {
    use super::{
        super::parallel::{Axis, Line},
        *,
    };
    use crate::report::plots::Curve;

    fn full() -> Report {
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        let example = |text: &str| Example {
            text: text.into(),
            truth: "positive".into(),
            predicted: "negative".into(),
            confidence: 0.93,
            row: 41,
        };
        let curve = Curve { name: "train".into(), points: vec![(0.0, 1.0), (1.0, f64::NAN)] };
        Report {
            title: "SST-2".into(),
            subtitle: "a sentence".into(),
            facts: vec![pair("accuracy", "0.81")],
            verdict: "It learned.".into(),
            trials: Some(trials()),
            curves: vec![("Loss".into(), "step".into(), "nats".into(), vec![curve])],
            confusion: Some((
                vec!["a".into(), "b".into(), "c".into()],
                vec![vec![5, 1, 0], vec![0, 5, 3], vec![0, 0, 5]],
            )),
            comparison: vec![("linear".into(), "0.80".into(), "two seconds".into())],
            right: vec![example("很好吃")],
            wrong: vec![example("bad")],
            samples: vec![pair("a <b> c", "written & read")],
            pictures: vec![Picture {
                name: "batch".into(),
                caption: "what it saw".into(),
                width: 2,
                height: 1,
                png: vec![1, 2, 3],
            }],
            data_notes: vec![pair("empty text", "2 rows dropped")],
            recipe_toml: "seed = 7\n".into(),
            next_steps: vec![pair("firebrick predict", "to try it")],
        }
    }

    fn trials() -> Trials {
        let axis = |name: &str| Axis { name: name.into(), bottom: "0".into(), top: "1 <".into() };
        let line = |best, whole| Line { places: vec![Some(0.2), None, Some(1.0)], best, whole };
        Trials {
            axes: ["rate", "decay", "loss"].map(axis).to_vec(),
            lines: vec![line(true, true), line(false, true), line(false, false)],
        }
    }

    /// Every tag is closed in order, and nothing would be fetched or run.
    #[track_caller]
    fn check_page(html: &str) {
        let mut open = vec!["html", "head"];
        let (head, body) = html.split_once("</style>").unwrap();
        assert!(head.starts_with("<!DOCTYPE html>\n<html lang=\"en\""));
        for tag in body.split('<').skip(1) {
            let tag = tag.split('>').next().unwrap();
            let name = tag.split([' ', '/']).find(|part| !part.is_empty()).unwrap();
            match tag {
                _ if tag.ends_with('/') => {}
                _ if tag.starts_with('/') => assert_eq!(open.pop(), Some(name)),
                _ => open.push(name),
            }
        }
        assert!(open.is_empty(), "{open:?}");
        let html = html.replace(" src=\"data:image/png;base64,", " ");
        for bad in ["<script", " src=", "url(", "@import", "<link", " onload="] {
            assert!(!html.contains(bad), "{bad}");
        }
        for address in html.split("http").skip(1) {
            assert!(
                address.starts_with("-equiv=") || address.starts_with("://www.w3.org/2000/svg\"")
            );
        }
    }

    #[test]
    fn a_full_report_has_every_section_in_order() {
        let html = page(&full());
        check_page(&html);
        let order = [
            "Comparison",
            "Training",
            "Confusions",
            "Examples",
            "Pictures",
            "Data",
            "Recipe",
            "Next steps",
        ];
        let places = order.map(|title| html.find(&format!("</span> {title}</h2>")).unwrap());
        assert!(places.is_sorted(), "{places:?}");
        assert_eq!(html.matches("<table").count(), html.matches("<caption").count());
        assert!(html.contains("lang=\"zh\">很好吃"));
        assert!(html.contains("<b>Table 5.</b>") && html.contains("<b>Figure 2.</b>"));
        let first =
            "<tr role=\"row\"><th role=\"rowheader\" scope=\"row\" data-head=\"True\">b</th>";
        let second = first.replace(">b<", ">a<");
        assert!(html.find(first).unwrap() < html.find(&second).unwrap(), "3 confusions before 1");
    }

    #[test]
    fn an_empty_report_is_a_page() {
        let html = page(&Report::default());
        check_page(&html);
        assert!(!html.contains("<h2") && !html.contains("<table") && !html.contains("<nav"));
        check_page(&page(&Report { confusion: Some((vec![], vec![])), ..Report::default() }));
    }

    #[test]
    fn hostile_text_stays_text_everywhere() {
        let mut values = serde_json::to_value(full()).unwrap();
        poison(&mut values);
        let report: Report = serde_json::from_value(values).unwrap();
        assert!(
            report.title.contains("<script>") && report.curves[0].3[0].name.contains("<script>")
        );
        check_page(&page(&report));
    }

    fn poison(value: &mut serde_json::Value) {
        match value {
            serde_json::Value::String(text) => *text = "\"'><script>&</td>\0".to_owned(),
            serde_json::Value::Array(values) => values.iter_mut().for_each(poison),
            serde_json::Value::Object(values) => values.values_mut().for_each(poison),
            _ => {}
        }
    }

    #[test]
    fn a_long_text_is_cut_and_its_length_told() {
        let mut report = full();
        report.wrong[0].text = "长".repeat(500);
        let html = page(&report);
        assert!(html.contains("长…</span> <small>(500 characters)</small>"));
        assert_eq!(html.matches('长').count(), 399);
    }
}
