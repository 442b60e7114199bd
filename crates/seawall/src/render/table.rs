use comfy_table::{CellAlignment, Table, TableStyle};

/// How a column stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// A table without lines: columns two spaces apart, a header, no trailing blanks.
pub fn table(columns: &[(&str, Align)], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(TableStyle::new());
    table.force_no_tty();
    table.set_header(columns.iter().map(|(name, _)| *name));
    table.add_rows(rows);
    for (column, (_, align)) in table.column_iter_mut().zip(columns) {
        column.set_padding((0, 2));
        column.set_cell_alignment(match align {
            Align::Left => CellAlignment::Left,
            Align::Right => CellAlignment::Right,
        });
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_without_borders() {
        let rows = vec![
            vec!["20260102T0200-k7q2".to_owned(), "12.1 MiB".to_owned()],
            vec!["x".to_owned(), "3 B".to_owned()],
        ];
        assert_eq!(
            table(&[("ID", Align::Left), ("STORED", Align::Right)], rows),
            "ID                    STORED\n20260102T0200-k7q2  12.1 MiB\nx                        3 B\n"
        );
    }
}
