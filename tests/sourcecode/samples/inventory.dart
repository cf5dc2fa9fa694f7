/// Keeps count of the goods in a warehouse.
library inventory;

/// One kind of goods on the shelves.
class Article {
  /// Puts goods on the shelves for the first time.
  Article(this.name, this.quantity, this.price);

  final String name;
  int quantity;
  double price;
}

/// Holds articles by their names.
class Warehouse {
  final Map<String, Article> _articles = {};

  /// Adds goods, and remembers the newest price.
  void receive(String name, int quantity, double price) {
    final article = _articles[name];
    if (article == null) {
      _articles[name] = Article(name, quantity, price);
      return;
    }
    article.quantity += quantity;
    article.price = price;
  }

  /// Takes goods out, and returns how many were missing.
  int ship(String name, int quantity) {
    final article = _articles[name];
    if (article == null) {
      return quantity;
    }
    // What is not there cannot be shipped: the rest is reported.
    var shipped = quantity;
    if (quantity > article.quantity) {
      shipped = article.quantity;
    }
    article.quantity -= shipped;
    return quantity - shipped;
  }

  /// Lists the articles that can be shipped, in order.
  List<String> names() {
    final names = <String>[];
    for (final article in _articles.values) {
      if (article.quantity > 0) {
        names.add(article.name);
      }
    }
    names.sort();
    return names;
  }

  /// Sums the prices of all goods.
  double value() {
    var total = 0.0;
    for (final article in _articles.values) {
      total += article.quantity * article.price;
    }
    return total;
  }
}
