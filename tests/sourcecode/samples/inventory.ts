/** Keeps count of the goods in a warehouse. */

/** One kind of goods on the shelves. */
export interface Article {
  name: string;
  quantity: number;
  price: number;
}

/** Holds articles by their names. */
export class Warehouse {
  private articles = new Map<string, Article>();

  /** Adds goods, and remembers the newest price. */
  receive(name: string, quantity: number, price: number): void {
    const article = this.articles.get(name);
    if (article === undefined) {
      this.articles.set(name, { name, quantity, price });
      return;
    }
    article.quantity += quantity;
    article.price = price;
  }

  /** Takes goods out, and returns how many were missing. */
  ship(name: string, quantity: number): number {
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
  names(): string[] {
    const names: string[] = [];
    for (const article of this.articles.values()) {
      if (article.quantity > 0) {
        names.push(article.name);
      }
    }
    return names.sort();
  }

  /** Sums the prices of all goods. */
  value(): number {
    let total = 0;
    for (const article of this.articles.values()) {
      total += article.quantity * article.price;
    }
    return total;
  }
}
