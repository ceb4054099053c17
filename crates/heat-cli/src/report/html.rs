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

/// A figure: drawings under an optional legend, and how to read them. The style sheet shows the
/// series of that colour alone when its name is pointed at, or reached by the keyboard.
pub fn figure(id: &str, legend: &[(String, Ink)], body: &str, caption: &str) -> String {
    let mut entries = String::new();
    let series = legend.iter().filter(|(_, ink)| matches!(ink, Ink::Series(_))).count();
    for (name, ink) in legend {
        let reached = match ink {
            Ink::Series(_) if series > 1 => " tabindex=\"0\"",
            _ => "",
        };
        let _ = write!(
            entries,
            "<li{reached}><span class=\"swatch\" style=\"background:{}\"></span>{}</li>",
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

/// What may be wider than the page, and scrolls.
pub fn scroller(name: &str, body: &str) -> String {
    let name = escape(name);
    format!(
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{name}\">\n{body}</div>\n"
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
    /// A smaller text below.
    pub detail: String,
    /// A bar behind it, as a part of the cell.
    pub bar: Option<f64>,
}

impl Cell {
    pub fn text(text: impl Into<String>) -> Self {
        let (best, detail, bar) = Default::default();
        Cell { text: text.into(), value: None, best, detail, bar }
    }

    pub fn number(text: impl Into<String>, value: f64) -> Self {
        Cell { value: Some(value), ..Cell::text(text) }
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
        let detail = match self.detail.as_str() {
            "" => String::new(),
            detail => format!("<small>{}</small>", escape(detail)),
        };
        let bar = self.bar.map_or(String::new(), |part| {
            format!(" style=\"--bar:{:.1}%\"", 100.0 * part.clamp(0.0, 1.0))
        });
        let end = if first { "th" } else { "td" };
        format!("<{tag}{class}{value}{bar}>{text}{detail}</{end}>")
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
            "<table id=\"{0}\" class=\"sortable\" aria-describedby=\"{0}-caption\">\n<thead>\n",
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
        out.push_str("</tbody></table>\n");
        // The caption does not scroll with the table.
        let caption = escape(&self.caption);
        scroller(&self.caption, &out)
            + &format!("<p class=\"caption\" id=\"{}-caption\">{caption}</p>\n", self.id)
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
