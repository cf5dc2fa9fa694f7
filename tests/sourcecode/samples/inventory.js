/** Keeps count of the goods in a warehouse. */

/** Holds articles by their names. */
export class Warehouse {
  constructor() {
    this.articles = new Map();
  }

  /** Adds goods, and remembers the newest price. */
  receive(name, quantity, price) {
    const article = this.articles.get(name);
    if (article === undefined) {
      this.articles.set(name, { name, quantity, price });
      return;
    }
    article.quantity += quantity;
    article.price = price;
  }

  /** Takes goods out, and returns how many were missing. */
  ship(name, quantity) {
    const article = this.articles.get(name);
    if (article === undefined) {
      return quantity;
    }
    // What is not there cannot be shipped: the rest is reported.
    const shipped = Math.min(quantity, article.quantity);
    article.quantity -= shipped;
    return quantity - shipped;
  }

  /** Lists the articles that can be shipped, in order. */
  names() {
    const names = [];
    for (const article of this.articles.values()) {
      if (article.quantity > 0) {
        names.push(article.name);
      }
    }
    return names.sort();
  }

  /** Sums the prices of all goods. */
  value() {
    let total = 0;
    for (const article of this.articles.values()) {
      total += article.quantity * article.price;
    }
    return total;
  }
}
