//! Keeps count of the goods in a warehouse.

use std::collections::BTreeMap;

/// One kind of goods on the shelves.
#[derive(Debug, Clone, Default)]
pub struct Article {
    pub quantity: u32,
    pub price: f64,
}

/// Holds articles by their names.
#[derive(Default)]
pub struct Warehouse {
    articles: BTreeMap<String, Article>,
}

impl Warehouse {
    /// Opens a warehouse without any goods.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds goods, and remembers the newest price.
    ///
    /// ```
    /// let mut warehouse = Warehouse::new();
    /// warehouse.receive("bolt", 3, 0.5);
    /// ```
    pub fn receive(&mut self, name: &str, quantity: u32, price: f64) {
        let article = self.articles.entry(name.to_owned()).or_default();
        article.quantity += quantity;
        article.price = price;
    }

    /// Takes goods out, and returns how many were missing; `None` for an unknown article.
    pub fn ship(&mut self, name: &str, quantity: u32) -> Option<u32> {
        let article = self.articles.get_mut(name)?;
        // What is not there cannot be shipped: the rest is reported.
        let shipped = if quantity > article.quantity {
            article.quantity
        } else {
            quantity
        };
        article.quantity -= shipped;
        Some(quantity - shipped)
    }

    /// Lists the articles that can be shipped, in order.
    pub fn names(&self) -> Vec<&str> {
        let mut names = Vec::new();
        for (name, article) in &self.articles {
            if article.quantity > 0 {
                names.push(name.as_str());
            }
        }
        names
    }

    /// Sums the prices of all goods.
    pub fn value(&self) -> f64 {
        let mut total = 0.0;
        for article in self.articles.values() {
            total += f64::from(article.quantity) * article.price;
        }
        total
    }
}
