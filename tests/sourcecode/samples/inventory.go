// Package inventory keeps count of the goods in a warehouse.
package inventory

import (
	"errors"
	"sort"
)

// ErrUnknown says that no article has the given name.
var ErrUnknown = errors.New("unknown article")

// Article is one kind of goods on the shelves.
type Article struct {
	Name     string
	Quantity int
	Price    float64
}

// Warehouse holds articles by their names.
type Warehouse struct {
	articles map[string]*Article
}

// Open returns a warehouse without any goods.
func Open() *Warehouse {
	return &Warehouse{articles: make(map[string]*Article)}
}

// Receive adds goods, and remembers the newest price.
func (warehouse *Warehouse) Receive(name string, quantity int, price float64) {
	article, found := warehouse.articles[name]
	if !found {
		article = &Article{Name: name}
		warehouse.articles[name] = article
	}
	article.Quantity += quantity
	article.Price = price
}

// Ship takes goods out. It returns how many were missing.
func (warehouse *Warehouse) Ship(name string, quantity int) (int, error) {
	article, found := warehouse.articles[name]
	if !found {
		return quantity, ErrUnknown
	}
	// What is not there cannot be shipped: the rest is reported.
	missing := 0
	if quantity > article.Quantity {
		missing = quantity - article.Quantity
		quantity = article.Quantity
	}
	article.Quantity -= quantity
	return missing, nil
}

// Names lists the articles that can be shipped, in order.
func (warehouse *Warehouse) Names() []string {
	var names []string
	for name, article := range warehouse.articles {
		if article.Quantity > 0 {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	return names
}

// Value sums the prices of all goods.
func (warehouse *Warehouse) Value() float64 {
	total := 0.0
	for _, article := range warehouse.articles {
		total += float64(article.Quantity) * article.Price
	}
	return total
}
