//! Panels: small charts, drawn by `plotters` as SVG that follows the page's
//! colours.
//!
//! Coordinates of the drawing library are whole numbers, so a panel is drawn
//! [`FINE`] times as large as it is shown. Colours are written as `#0101NN`
//! and then replaced by variables of the style sheet, which knows light and
//! dark; a text of the user's cannot contain one, as its quotes are escaped.

use std::ops::Range;

use heat_ood::{Error, Result};
use plotters::coord::Shift;
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use super::html::escape;
use super::ink::{Ink, SERIES};
use super::scale::Scale;

/// Units of the drawing to one pixel of the page.
const FINE: u32 = 4;

/// An axis: what it shows, from where to where.
pub struct Axis {
    pub label: String,
    pub range: Range<f64>,
    /// About how many values are written.
    pub ticks: usize,
    /// How values are written; by default with the digits that neighbours need
    /// to differ.
    pub format: Option<fn(f64) -> String>,
    /// Where values stand.
    pub scale: Scale,
}

impl Axis {
    pub fn new(label: impl Into<String>, range: Range<f64>) -> Self {
        Axis { label: label.into(), range, ticks: 6, format: None, scale: Scale::Linear }
    }

    /// From 0 to 1 in percent.
    pub fn percent(label: impl Into<String>, to: f64) -> Self {
        Axis { format: Some(|v| format!("{:.0}", 100.0 * v)), ..Axis::new(label, 0.0..to) }
    }

    /// On a scale, of the values on both sides.
    fn written(&self, place: f64) -> String {
        let value = self.scale.value(place);
        if let Some(format) = self.format {
            return format(value);
        }
        match self.scale {
            Scale::Linear => spaced(value, (self.range.end - self.range.start) / self.ticks as f64),
            // Ticks are round numbers there.
            Scale::Symlog { width, .. } => spaced(value, (value.abs() / 10.0).max(1e-6 * width)),
            Scale::Log => spaced(value, value.abs() / 10.0),
        }
    }

    fn coordinate(&self) -> Coordinate {
        let places = self.scale.place(self.range.start)..self.scale.place(self.range.end);
        let plain = RangedCoordf64::from(wide(&places));
        let ticks = match self.scale {
            Scale::Linear => plain.key_points(self.ticks),
            scale => scale.ticks(&self.range, self.ticks),
        };
        Coordinate { plain, ticks }
    }
}

/// What is drawn on a panel, in this order.
pub enum Mark {
    Line {
        points: Vec<(f64, f64)>,
        ink: Ink,
        width: u32,
    },
    /// A filled outline.
    Area {
        points: Vec<(f64, f64)>,
        ink: Ink,
        opacity: f64,
    },
    Dots {
        points: Vec<(f64, f64)>,
        ink: Ink,
        opacity: f64,
        radius: u32,
    },
}

impl Mark {
    pub fn line(points: Vec<(f64, f64)>, ink: Ink) -> Self {
        Mark::Line { points, ink, width: 2 }
    }

    /// A thin line to compare with.
    pub fn rule(points: Vec<(f64, f64)>, ink: Ink) -> Self {
        Mark::Line { points, ink, width: 1 }
    }
}

/// A chart with its heading.
pub struct Panel {
    pub title: String,
    /// What is to be known of this panel alone; often nothing.
    pub note: String,
    /// What it shows, for those who cannot see it.
    pub alt: String,
    pub x: Axis,
    pub y: Axis,
    pub marks: Vec<Mark>,
    /// Width and height in pixels.
    pub size: (u32, u32),
    /// Width of the labels at the left, in pixels.
    pub left: u32,
}

impl Panel {
    pub fn new(title: impl Into<String>, x: Axis, y: Axis) -> Self {
        let title = title.into();
        let alt = format!("{title}: {} against {}", y.label, x.label);
        let (note, marks) = Default::default();
        Panel { title, note, alt, x, y, marks, size: (380, 290), left: 50 }
    }

    /// Heading and drawing as HTML.
    pub fn html(&self) -> Result<String> {
        let title = match self.title.as_str() {
            "" => String::new(),
            title => format!("<h4>{}</h4>", escape(title)),
        };
        let note = match self.note.as_str() {
            "" => String::new(),
            note => format!("<p class=\"note\">{}</p>", escape(note)),
        };
        let width = self.size.0;
        let svg = self
            .svg()
            .map_err(|e| Error::format(&self.alt, format!("the figure cannot be drawn: {e}")))?;
        Ok(format!("<div class=\"panel\" style=\"max-width:{width}px\">{title}{note}{svg}</div>\n"))
    }

    fn svg(&self) -> Drawn<String> {
        let mut out = String::new();
        let size = (self.size.0 * FINE, self.size.1 * FINE);
        let root = SVGBackend::with_string(&mut out, size).into_drawing_area();
        self.draw(&root)?;
        root.present()?;
        drop(root);
        Ok(finish(&out, size, &self.alt))
    }

    fn draw(&self, root: &DrawingArea<SVGBackend<'_>, Shift>) -> Drawn {
        let mut chart = ChartBuilder::on(root)
            .margin(6 * FINE)
            .margin_right(14 * FINE)
            .x_label_area_size(38 * FINE)
            .y_label_area_size(self.left * FINE)
            .build_cartesian_2d(self.x.coordinate(), self.y.coordinate())?;
        self.axes(&mut chart)?;
        for mark in &self.marks {
            self.draw_mark(&mut chart, mark)?;
        }
        Ok(())
    }

    fn places(&self, points: &[(f64, f64)]) -> Vec<(f64, f64)> {
        let (x, y) = (self.x.scale, self.y.scale);
        points.iter().map(|p| (x.place(p.0), y.place(p.1))).collect()
    }

    fn draw_mark(&self, chart: &mut Chart<'_, '_>, mark: &Mark) -> Drawn {
        use std::iter::once;
        match mark {
            Mark::Line { points, ink, width } => {
                let style = rgb(*ink).stroke_width(width * FINE);
                chart.draw_series(LineSeries::new(self.places(points), style))?;
            }
            Mark::Area { points, ink, opacity } => {
                let style = rgb(*ink).mix(*opacity).filled();
                chart.draw_series(once(Polygon::new(self.places(points), style)))?;
            }
            Mark::Dots { points, ink, opacity, radius } => {
                let style = rgb(*ink).mix(*opacity).filled();
                let dot = |p| Circle::new(p, radius * FINE, style);
                chart.draw_series(self.places(points).into_iter().map(dot))?;
            }
        }
        Ok(())
    }

    fn axes(&self, chart: &mut Chart<'_, '_>) -> Drawn {
        let (x, y) = (|v: &f64| self.x.written(*v), |v: &f64| self.y.written(*v));
        let mut mesh = chart.configure_mesh();
        mesh.bold_line_style(rgb(Ink::Grid).stroke_width(FINE))
            .light_line_style(TRANSPARENT)
            .axis_style(rgb(Ink::Muted).stroke_width(FINE))
            .x_labels(self.x.ticks)
            .y_labels(self.y.ticks)
            .x_label_formatter(&x)
            .y_label_formatter(&y)
            .set_all_tick_mark_size(3 * FINE)
            .label_style(font(11.0, Ink::Muted))
            .axis_desc_style(font(12.0, Ink::Text));
        if !self.x.label.is_empty() {
            mesh.x_desc(&self.x.label);
        }
        if !self.y.label.is_empty() {
            mesh.y_desc(&self.y.label);
        }
        mesh.draw()
    }
}

/// How a colour is written until the page's takes its place.
fn rgb(ink: Ink) -> RGBColor {
    let code = match ink {
        Ink::Text => 0,
        Ink::Muted => 1,
        Ink::Grid => 2,
        Ink::Series(n) => 16 + (n % SERIES) as u8,
    };
    RGBColor(1, 1, code)
}

/// Places on an axis, with those of its ticks.
struct Coordinate {
    plain: RangedCoordf64,
    ticks: Vec<f64>,
}

impl Ranged for Coordinate {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        self.plain.map(value, limit)
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if hint.weight().allow_light_points() { Vec::new() } else { self.ticks.clone() }
    }

    fn range(&self) -> Range<f64> {
        self.plain.range()
    }
}

type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<Coordinate, Coordinate>>;
type Drawn<T = ()> = std::result::Result<T, DrawingAreaErrorKind<std::io::Error>>;

fn font(pixels: f64, ink: Ink) -> TextStyle<'static> {
    // The library divides by 1.24 when it writes the size.
    let size = 1.24 * pixels * f64::from(FINE);
    let mut style = TextStyle::from(("sans-serif", size).into_font());
    style.color = rgb(ink).to_backend_color();
    style
}

/// A range that can be divided by its width.
fn wide(range: &Range<f64>) -> Range<f64> {
    let finite = |v: f64| if v.is_finite() { v.clamp(-1e30, 1e30) } else { 0.0 };
    let (low, high) = (finite(range.start), finite(range.end));
    let least = 1e-6 * low.abs().max(high.abs()).max(1e-12);
    if high - low > least { low..high } else { low - least..high + least }
}

/// What the page needs of a drawing: no size of its own, the page's colours.
fn finish(svg: &str, size: (u32, u32), alt: &str) -> String {
    let body = svg.find('>').map_or("", |at| &svg[at + 1..]);
    let (width, height) = size;
    let mut out = format!(
        "<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{}\">",
        escape(alt)
    );
    let body = body.replace(" opacity=\"1\"", "").replace(" font-family=\"sans-serif\"", "");
    let mut pieces = body.split("\"#0101");
    out.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        let code = piece.get(..2).and_then(|c| u8::from_str_radix(c, 16).ok()).unwrap_or(0);
        let ink = match code {
            0 => Ink::Text,
            1 => Ink::Muted,
            2 => Ink::Grid,
            n => Ink::Series(usize::from(n.saturating_sub(16))),
        };
        out.push('"');
        out.push_str(&ink.css());
        out.push_str(piece.get(2..).unwrap_or_default());
    }
    out
}

/// A number among others `step` or so away, with the digits that tell them apart.
/// Ticks are sums: what should be zero is nearly so.
fn spaced(v: f64, step: f64) -> String {
    let size = v.abs();
    if size < 1e-6 * step {
        return "0".into();
    }
    let digits = |of: f64| (1.0 + (of / step).log10()).ceil().clamp(0.0, 9.0) as usize;
    if (1e-3..1e5).contains(&size) {
        let text = format!("{v:.*}", digits(1.0));
        let short = if text.contains('.') { text.trim_end_matches('0') } else { &text };
        return short.trim_end_matches('.').to_owned();
    }
    let text = format!("{v:.*e}", digits(size));
    let (number, power) = text.split_once('e').unwrap_or((&text, "0"));
    let short = if number.contains('.') { number.trim_end_matches('0') } else { number };
    format!("{}e{power}", short.trim_end_matches('.'))
}

/// The polyline without the points that the eye does not miss: each kept one
/// is `step` of the ranges away from the last, corners of the ends kept.
pub fn thinned(points: &[(f64, f64)], step: f64) -> Vec<(f64, f64)> {
    let mut out: Vec<(f64, f64)> = Vec::new();
    for (i, &(x, y)) in points.iter().enumerate() {
        let far = |&(a, b): &(f64, f64)| (x - a).abs().max((y - b).abs()) >= step;
        if i + 1 == points.len() || out.last().is_none_or(far) {
            out.push((x, y));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_long_as_needed() {
        for (v, step, want) in [
            (0.0, 1.0, "0"),
            (-1.08e-19, 0.002, "0"),
            (0.5, 0.1, "0.5"),
            (-12.5, 0.5, "-12.5"),
            (250.0, 50.0, "250"),
            (100.0, 20.0, "100"),
            (501.2, 0.2, "501.2"),
            (1.5e7, 5e6, "1.5e7"),
            (2e-7, 1e-7, "2e-7"),
            (-9.72e-4, 2e-6, "-9.72e-4"),
            (-9.7e-4, 2e-6, "-9.7e-4"),
        ] {
            assert_eq!(spaced(v, step), want);
        }
    }

    #[test]
    fn colours_and_texts_of_a_panel_are_the_pages() {
        let x = Axis::new("\"#010110<script>", 0.0..1.0);
        let mut panel = Panel::new("a<b", x, Axis::new("y", 0.0..0.0));
        panel.marks.push(Mark::line(vec![(0.0, 0.0), (1.0, 0.0)], Ink::Series(3)));
        let html = panel.html().unwrap();
        assert!(html.contains("stroke=\"var(--s3)\""), "{html}");
        assert!(html.contains("&quot;#010110&lt;script&gt;"));
        assert!(!html.contains("\"#0101") && !html.contains("<script"));
    }

    #[test]
    fn a_straight_line_keeps_its_ends() {
        let line: Vec<(f64, f64)> = (0..=1000).map(|i| (f64::from(i) / 1000.0, 0.0)).collect();
        let thin = thinned(&line, 0.01);
        assert_eq!((thin.first(), thin.last()), (line.first(), line.last()));
        let gaps = thin.windows(2).map(|w| w[1].0 - w[0].0);
        assert!(gaps.fold(0.0, f64::max) < 0.0111 && thin.len() < 103, "{}", thin.len());
    }
}
