//! What SVG pictures have in common: their first line, with ground and title, and text within them.

/// The begin of a picture, with its title at `x`.
pub fn begin(title: &str, (width, height): (f64, f64), x: f64) -> String {
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="#fff"/><text x="{x}" y="26" font-size="16">{}</text>
"##,
        escape(title)
    )
}

/// The end of it.
pub const END: &str = "</svg>\n";

pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
