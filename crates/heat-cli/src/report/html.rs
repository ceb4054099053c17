//! Pieces of the page. Every text that comes from outside goes through
//! [`escape`].

use std::fmt::Write;

use super::ink::Ink;

/// A text as HTML, also within a quoted attribute.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Not allowed in HTML, and of no use to a reader.
            '\0'..='\x08' | '\x0b'..='\x1f' | '\x7f' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// A figure: drawings under an optional legend, and how to read them.
pub fn figure(id: &str, legend: &[(String, Ink)], body: &str, caption: &str) -> String {
    let mut entries = String::new();
    for (name, ink) in legend {
        let _ = write!(
            entries,
            "<li><span class=\"swatch\" style=\"background:{}\"></span>{}</li>",
            ink.css(),
            escape(name)
        );
    }
    let legend = match entries.is_empty() {
        true => String::new(),
        false => format!("<ul class=\"legend\">{entries}</ul>\n"),
    };
    format!(
        "<figure id=\"{id}\">\n{legend}<div class=\"panels\">\n{body}</div>\n<figcaption>{}</figcaption>\n</figure>\n",
        escape(caption)
    )
}

/// `1 run`, `2 runs`.
pub fn counted(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// Something that can be opened and closed; `summary` is plain text.
pub fn details(summary: &str, open: bool, body: &str) -> String {
    let open = if open { " open" } else { "" };
    format!("<details{open}><summary>{}</summary>\n{body}</details>\n", escape(summary))
}

/// A section; `body` is HTML.
pub fn section(id: &str, title: &str, body: &str) -> String {
    format!("<section id=\"{id}\">\n<h2>{}</h2>\n{body}</section>\n", escape(title))
}

/// A cell: what is shown, and the number by which it is sorted.
pub struct Cell {
    pub text: String,
    pub value: Option<f64>,
    /// Among the best of its column.
    pub best: bool,
}

impl Cell {
    pub fn text(text: impl Into<String>) -> Self {
        Cell { text: text.into(), value: None, best: false }
    }

    pub fn number(text: impl Into<String>, value: f64) -> Self {
        Cell { text: text.into(), value: Some(value), best: false }
    }

    fn html(&self, first: bool) -> String {
        let tag = if first { "th scope=\"row\"" } else { "td" };
        let class = match (self.value.is_some(), self.best) {
            (true, true) => " class=\"n best\"",
            (true, false) => " class=\"n\"",
            _ => "",
        };
        let value = self.value.map_or(String::new(), |v| format!(" data-value=\"{v}\""));
        let text = escape(&self.text);
        format!("<{tag}{class}{value}>{text}</{}>", if first { "th" } else { "td" })
    }
}

/// A table that sorts at a click on a title.
pub struct Table {
    pub id: String,
    pub caption: String,
    /// Titles above several columns, with their number.
    pub groups: Vec<(String, usize)>,
    pub titles: Vec<String>,
    pub rows: Vec<Vec<Cell>>,
}

impl Table {
    pub fn html(&self) -> String {
        let mut out = format!(
            "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{0}\">\n<table id=\"{1}\" class=\"sortable\"><caption>{0}</caption>\n<thead>\n",
            escape(&self.caption),
            self.id
        );
        if !self.groups.is_empty() {
            out.push_str("<tr class=\"groups\">");
            for (title, n) in &self.groups {
                let title = escape(title);
                let _ = match title.is_empty() {
                    true => write!(out, "<td colspan=\"{n}\"></td>"),
                    false => write!(out, "<th scope=\"colgroup\" colspan=\"{n}\">{title}</th>"),
                };
            }
            out.push_str("</tr>\n");
        }
        out.push_str("<tr>");
        for title in &self.titles {
            let title = escape(title);
            let _ = write!(out, "<th scope=\"col\"><button type=\"button\">{title}</button></th>");
        }
        out.push_str("</tr>\n</thead>\n<tbody>\n");
        for row in &self.rows {
            let cells: String = row.iter().enumerate().map(|(i, c)| c.html(i == 0)).collect();
            let _ = writeln!(out, "<tr>{cells}</tr>");
        }
        out.push_str("</tbody></table>\n</div>\n");
        out
    }
}

/// Terms with what belongs to them; both plain text.
pub fn definitions(pairs: &[(String, String)]) -> String {
    let mut out = String::from("<dl>\n");
    for (term, text) in pairs {
        let _ = writeln!(out, "<dt>{}</dt><dd>{}</dd>", escape(term), escape(text));
    }
    out + "</dl>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_name_becomes_markup() {
        assert_eq!(escape("<b a='\"'>&\x01"), "&lt;b a=&#39;&quot;&#39;&gt;&amp;\u{fffd}");
        let cell = Cell { best: true, ..Cell::number("1<2", 1.5) };
        assert_eq!(cell.html(false), "<td class=\"n best\" data-value=\"1.5\">1&lt;2</td>");
    }
}
